"""Connections within bounds: one that sends no request in time is closed, and the oldest such where there are too many.

uvicorn bounds the time between requests, but neither the first nor how slowly the lines of one may come.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def bounded_protocol(*, header_seconds: float, connections: int) -> type[H11Protocol]:
    """uvicorn's protocol with these bounds; connections are counted over all of a server's."""
    idle: dict[_Bounded, None] = {}

    class Protocol(_Bounded):
        pass

    Protocol.header_seconds, Protocol.most, Protocol.idle = header_seconds, connections, idle
    return Protocol


class _Bounded(H11Protocol):
    header_seconds: float
    most: int
    # Without a request under way, in the order in which they began to wait.
    idle: dict[_Bounded, None]
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            oldest = next(iter(self.idle), self)
            oldest.transport.abort()
        self.idle[self] = None
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._timer is None:
            self._await_request()

    def on_response_complete(self) -> None:
        self.idle[self] = None
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        self._timer = self.loop.call_later(self.header_seconds, self.transport.abort)

    def _stop_waiting(self) -> None:
        self.idle.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
