"""`medtune serve`: the API on a port, until a signal; answers under way end within a bound."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from uvicorn import Config, Server

from medtune.inference.serving.address import Address, bind, shown_address
from medtune.inference.serving.app import Service, make_app
from medtune.inference.serving.connections import bounded_protocol
from medtune.inference.serving.engine import Engine
from medtune.inference.serving.limits import Bounds, Limits
from medtune.runtime.progress import say

# How long connections may take to close once all answers are written.
_CLOSING_SECONDS = 5
# Connections that wait to be accepted.
_BACKLOG = 2048


def serve(target: str, address: Address, limits: Limits, bounds: Bounds) -> None:
    """Answer requests until SIGINT or SIGTERM, which is raised again at the end. Raises MedtuneError.

    The port is taken before the model is loaded, and requests are let in after.
    """
    with _opened(target, address, limits, bounds) as (server, listener):
        engine = server.service.engine
        say(f"listening on http://{shown_address(listener)}/v1, models {', '.join(engine.models)}")
        for notice in engine.chat.notices:
            say(notice)
        server.run(sockets=[listener])
    if server.stopped_by is not None:
        signal.raise_signal(server.stopped_by)


@contextmanager
def serving(target: str, address: Address, limits: Limits, bounds: Bounds) -> Iterator[str]:
    """Answer requests in a thread until this block ends; gives the API's URL. Raises MedtuneError.

    At its end answers under way have `address.grace` seconds.
    """
    with _opened(target, address, limits, bounds) as (server, listener):
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="medtune-server", daemon=True)
        thread.start()
        try:
            yield f"http://{shown_address(listener)}/v1"
        finally:
            server.stop()
            thread.join()


@contextmanager
def _opened(
    target: str, address: Address, limits: Limits, bounds: Bounds
) -> Iterator[tuple[GracefulServer, socket.socket]]:
    """The server, which is to be run, and its port, where requests wait until it does."""
    listener = bind(address)
    with listener, Engine.open(target, limits) as engine:
        listener.listen(_BACKLOG)
        yield GracefulServer(Service(engine, bounds), address), listener


class GracefulServer(Server):
    """uvicorn's server, which lets answers end before it does."""

    def __init__(self, service: Service, address: Address) -> None:
        self.service = service
        self.grace = address.grace
        self.stopped_by: int | None = None
        self._ends_at: float | None = None
        bounds = service.bounds
        # It would log each malformed request of a stranger, and set up logging for the whole process.
        logging.getLogger("uvicorn").setLevel(logging.ERROR)
        _allow_files(bounds.connections + 256)
        super().__init__(
            Config(
                make_app(service, address.key, is_local=address.is_local),
                http=bounded_protocol(header_seconds=bounds.header_seconds, connections=bounds.connections),
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_CLOSING_SECONDS,
                h11_max_incomplete_event_size=2**16,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A first signal lets answers end; a second ends them."""
        self.stopped_by = sig
        if self._ends_at is not None:
            self.should_exit = self.force_exit = True
        self.stop()

    def stop(self) -> None:
        """Begin no more answers, and end when those under way have ended."""
        if self._ends_at is None:
            self._ends_at = time.monotonic() + self.grace
            self.service.is_stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether to end."""
        if self._ends_at is not None and (not self.service.active or time.monotonic() > self._ends_at):
            if self.service.active:
                # Those answers fail, and their clients are told.
                await asyncio.to_thread(self.service.engine.close)
            self.should_exit = True
        return await super().on_tick(counter)


def _allow_files(wanted: int) -> None:
    """Let the process open a file for each connection, as far as it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
