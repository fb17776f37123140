"""Who may ask: the key, and requests that a browser or a proxy was led to send."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from medtune.inference.serving.address import names_this_machine
from medtune.inference.serving.bodies import send_error
from medtune.inference.serving.requests import RequestError

_OPEN_PATHS = frozenset({"/health"})


class Guard:
    """Lets requests through to `app` that bring `key`, where there is one.

    Without a key only this machine can ask, and `is_local` has the Host header say so: a web page whose name was made
    to point here could read answers otherwise.
    """

    def __init__(self, app: ASGIApp, key: str | None, *, is_local: bool) -> None:
        self.app = app
        self.key = key.encode() if key else None
        self.is_local = is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        try:
            self._check(scope)
        except RequestError as error:
            await send_error(send, error)
            return
        await self.app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        names = [name for name, _ in scope["headers"]]
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers and b"content-length" in headers:
            raise RequestError(400, "a request has Content-Length or Transfer-Encoding, not both")
        if names.count(b"host") > 1 or names.count(b"authorization") > 1:
            raise RequestError(400, "Host and Authorization may be there once")
        host = headers.get(b"host", b"").decode("latin-1")
        if self.is_local and self.key is None and not names_this_machine(host):
            raise RequestError(403, "without a key only localhost may be asked")
        if self.key is not None and scope["path"] not in _OPEN_PATHS:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            # Compared whatever was given, and in a time that tells nothing of how far it agrees.
            is_right = hmac.compare_digest(given.strip(), self.key)
            if not is_right or kind.lower() != b"bearer":
                raise RequestError(401, "the API key is wrong or missing", code="invalid_api_key")
