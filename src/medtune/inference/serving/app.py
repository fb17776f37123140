"""The OpenAI-compatible API over an engine: /v1/chat/completions, /v1/completions, /v1/models, /health, /metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from medtune.errors import DataError, MedtuneError, show_value
from medtune.inference.serving.answering import Answering, EngineError, Piece, PromptTooLongError, QueueFullError
from medtune.inference.serving.bodies import NOTICE, read_body, send_error, send_whole
from medtune.inference.serving.engine import Engine
from medtune.inference.serving.guard import Guard
from medtune.inference.serving.limits import Bounds
from medtune.inference.serving.metrics import Metrics
from medtune.inference.serving.models import models_endpoints
from medtune.inference.serving.requests import Asked, RequestError, read_chat, read_completion
from medtune.inference.serving.responses import STREAM_END, ResponseShape, as_json, event


@dataclass
class Service:
    """What the endpoints share. While it `is_stopping`, answers under way go on and no other begins."""

    engine: Engine
    bounds: Bounds
    metrics: Metrics = field(init=False)
    is_stopping: bool = False
    active: int = 0

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.engine)


def make_app(service: Service, key: str | None, *, is_local: bool) -> ASGIApp:
    """The whole application, behind its guard."""

    async def health(request: Request) -> Response:
        status = "stopping" if service.is_stopping else "ok"
        return Response(as_json({"status": status}), 503 if service.is_stopping else 200, None, "application/json")

    async def metrics(request: Request) -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def not_there(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        problem = RequestError(status, f"{request.method} {request.url.path}: {getattr(error, 'detail', 'failed')}")
        return Response(as_json(problem.body), status, None, "application/json")

    routes = [
        Route("/v1/chat/completions", _Completions(service, is_chat=True), methods=["POST"]),
        Route("/v1/completions", _Completions(service, is_chat=False), methods=["POST"]),
        *models_endpoints(service.engine),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    app = Starlette(routes=routes, exception_handlers={404: not_there, 405: not_there})
    return Guard(app, key, is_local=is_local)


class _GoneError(Exception):
    """The client went away, so nothing need be sent."""


class _Completions:
    """Both kinds of completions: what is asked differs, and what comes back."""

    def __init__(self, service: Service, *, is_chat: bool) -> None:
        self.service = service
        self.is_chat = is_chat
        self.path = "chat" if is_chat else "completions"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = "200"
        try:
            await self._respond(scope, receive, send)
        except RequestError as error:
            status = str(error.status)
            await send_error(send, error)
        except (_GoneError, ConnectionError):
            status = "499"
        except Exception:
            status = "500"
            raise
        finally:
            self.service.metrics.requests.labels(self.path, status).inc()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        bounds = self.service.bounds
        content = await read_body(scope, receive, max_bytes=bounds.body_bytes, seconds=bounds.body_seconds)
        asked = read_chat(content) if self.is_chat else read_completion(content)
        if self.service.is_stopping:
            raise _stopping()
        self.service.active += 1
        try:
            answering, news = await self._begin(asked)
            async with _watched(receive, answering, news):
                pieces = self._pieces(answering, news)
                shape = ResponseShape(self.is_chat, asked.model)
                if asked.stream:
                    await self._stream(send, shape, answering, pieces, with_usage=asked.include_usage)
                else:
                    await self._send(send, shape, answering, pieces)
        finally:
            self.service.active -= 1

    async def _begin(self, asked: Asked) -> tuple[Answering, asyncio.Event]:
        engine, news, loop = self.service.engine, asyncio.Event(), asyncio.get_running_loop()
        if asked.model not in engine.models:
            known = ", ".join(engine.models)
            problem = f"model: there is no {show_value(asked.model)}, only {known}"
            raise RequestError(404, problem, "model", code="model_not_found")

        def on_news() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(news.set)

        prompt = asked.prompt
        try:
            if self.is_chat:
                ids = await asyncio.to_thread(engine.chat_prompt, asked.turns)
            elif isinstance(prompt, str):
                ids = await asyncio.to_thread(engine.text_prompt, prompt)
            else:
                ids = list(prompt)
            answering = engine.submit(ids, model=asked.model, options=asked.options, on_news=on_news)
        except QueueFullError as error:
            raise RequestError(429, str(error), code="queue_full", retry_after=error.seconds) from None
        except EngineError:
            raise _stopping() from None
        except MedtuneError as error:
            raise self._refusal(error) from None
        self.service.metrics.prompt_tokens.labels(asked.model).inc(len(ids))
        return answering, news

    def _refusal(self, error: MedtuneError) -> RequestError:
        field_name = str(error.problems[0].what) if isinstance(error, DataError) else None
        own = "messages" if self.is_chat else "prompt"
        field_name = own if field_name in (None, "prompt") else field_name
        is_long = isinstance(error, PromptTooLongError)
        return RequestError(400, str(error), field_name, code="context_length_exceeded" if is_long else None)

    async def _pieces(self, answering: Answering, news: asyncio.Event) -> AsyncIterator[Piece]:
        """What comes of the answer, until it ends or takes too long. Raises RequestError, and _GoneError."""
        begun, is_first = time.monotonic(), True
        seconds = self.service.bounds.answer_seconds
        while True:
            try:
                async with asyncio.timeout(seconds - (time.monotonic() - begun)):
                    await news.wait()
            except TimeoutError:
                raise RequestError(504, f"the answer took more than {seconds:g} s") from None
            news.clear()
            if answering.is_cancelled:
                raise _GoneError
            try:
                piece = answering.take()
            except EngineError as error:
                raise RequestError(503, str(error), retry_after=1) from None
            if piece is None:
                continue
            if is_first:
                self.service.metrics.first_text_seconds.observe(time.monotonic() - begun)
                is_first = False
            yield piece
            if piece.finish_reason is not None:
                self.service.metrics.seconds.observe(time.monotonic() - begun)
                return

    async def _send(self, send: Send, shape: ResponseShape, answering: Answering, pieces: AsyncIterator[Piece]) -> None:
        taken = [piece async for piece in pieces]
        text = "".join(piece.text for piece in taken)
        await send_whole(send, 200, as_json(shape.whole(text, taken[-1], answering.prompt_tokens)))

    async def _stream(
        self,
        send: Send,
        shape: ResponseShape,
        answering: Answering,
        pieces: AsyncIterator[Piece],
        *,
        with_usage: bool,
    ) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), NOTICE]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(content: bytes, *, more: bool = True) -> None:
            # A client that reads too slowly holds up its own answer, and no longer than any answer may take.
            async with asyncio.timeout(self.service.bounds.answer_seconds):
                await send({"type": "http.response.body", "body": content, "more_body": more})

        try:
            await write(b"".join(shape.start()))
            async for piece in pieces:
                await write(b"".join(shape.more(piece)))
                written = piece.new_tokens
            end = shape.usage(answering.prompt_tokens, written) if with_usage else b""
            await write(end + STREAM_END, more=False)
        except RequestError as error:  # the status is sent already
            await write(event(error.body), more=False)
        except TimeoutError:
            raise _GoneError from None


def _stopping() -> RequestError:
    return RequestError(503, "the server is stopping", code="stopping", retry_after=5)


@asynccontextmanager
async def _watched(receive: Receive, answering: Answering, news: asyncio.Event) -> AsyncIterator[None]:
    """A client that goes away frees its place, and so does every other end of this block."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        answering.cancel()
        news.set()

    watching: asyncio.Task[None] = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        answering.cancel()
