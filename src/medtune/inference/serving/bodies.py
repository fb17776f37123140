"""Bodies of requests, within their bounds of size and time, and what is sent back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from medtune.inference.chat import NO_ADVICE
from medtune.inference.serving.requests import RequestError
from medtune.inference.serving.responses import as_json

NOTICE = (b"x-medtune-notice", NO_ADVICE.encode())


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers by their names in lower case; of one that is there twice, the last."""
    return dict(scope["headers"])


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, seconds: float) -> bytes:
    """The whole body of a JSON request. Raises RequestError where it is something else, too large or too slow.

    A web page of another origin can send anything but JSON without being asked whether it may: hence the type.
    """
    headers = headers_of(scope)
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise RequestError(415, "the Content-Type must be application/json")
    if int(headers.get(b"content-length", b"0")) > max_bytes:
        raise RequestError(413, f"the body must have at most {max_bytes:,} bytes")
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError("the client went away")
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > max_bytes:
                    raise RequestError(413, f"the body must have at most {max_bytes:,} bytes")
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        raise RequestError(408, f"the body did not come within {seconds:g} s") from None


async def send_whole(
    send: Send, status: int, body: bytes, kind: str = "application/json", *more: tuple[bytes, bytes]
) -> None:
    """A response in one piece."""
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", kind.encode()), length, NOTICE, *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: RequestError) -> None:
    """An error as OpenAI's clients read it. The connection ends where the body may not have been read."""
    more: list[tuple[bytes, bytes]] = []
    if error.retry_after:
        more.append((b"retry-after", str(error.retry_after).encode()))
    if error.status == 401:
        more.append((b"www-authenticate", b"Bearer"))
    if error.status in (400, 401, 403, 408, 413, 415, 503):
        more.append((b"connection", b"close"))
    await send_whole(send, error.status, as_json(error.body), "application/json", *more)
