"""`medtune serve`: the API on a port, until a signal; answers under way end within a bound."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType

import uvicorn

from medtune.errors import ConfigError, Option
from medtune.inference.chat import DEMO_BABBLES, NO_ADVICE
from medtune.runtime.progress import say
from medtune.serving.app import Bounds, Service, make_app
from medtune.serving.connections import bounded_protocol
from medtune.serving.engine import Engine, Limits

# How long connections may take to close once all answers are written.
_CLOSING_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server listens, and the key that it asks for; `grace` is how many seconds answers have at its end."""

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None
    grace: float = 30

    @property
    def is_local(self) -> bool:
        """Whether this machine alone can reach it."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"


def serve(target: str, address: Address, limits: Limits, bounds: Bounds) -> None:
    """Answer requests until SIGINT or SIGTERM, which is raised again at the end. Raises MedtuneError.

    The port is taken before the model is loaded, and requests are let in after.
    """
    listener = bind(address)
    with listener, Engine.open(target, limits) as engine:
        say(f"listening on http://{_shown(listener)}/v1, models {', '.join(engine.models)}")
        say(NO_ADVICE)
        if engine.chat.is_demo:
            say(DEMO_BABBLES)
        server = Server(Service(engine, bounds), address)
        server.run(sockets=[listener])
    if server.stopped_by is not None:
        signal.raise_signal(server.stopped_by)


def bind(address: Address) -> socket.socket:
    """The port, taken but not listening. Raises ConfigError."""
    if not address.is_local and address.key is None:
        fix = ("give ", Option("api_key"), ", or MEDTUNE_API_KEY in the environment")
        raise ConfigError(Option("host", address.host), "others than this machine can reach it", fix)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        fix = ("choose another with ", Option("port"), " or ", Option("host"))
        raise ConfigError(f"{address.host}:{address.port}", error.strerror or str(error), fix) from None
    return listener


class Server(uvicorn.Server):
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
            uvicorn.Config(
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
            self.should_exit = True
        return await super().on_tick(counter)


def _allow_files(wanted: int) -> None:
    """Let the process open a file for each connection, as far as it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
