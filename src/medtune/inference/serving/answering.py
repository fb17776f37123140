"""What a client asks of the engine, and what it gets: an answer that comes piece by piece and can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medtune.errors import DataError, MedtuneError
from medtune.records import Answer, FinishReason


class EngineError(MedtuneError):
    """An answer that cannot be given: memory does not suffice for it, the engine has ended, or a library failed."""


class PromptTooLongError(DataError):
    """A prompt of more tokens than a request may have."""


class QueueFullError(EngineError):
    """As many requests wait as may wait; the same may work later, after about `seconds`."""

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(f"{waiting} requests wait already", fix=f"try again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Options:
    """How an answer is written: greedily unless told, as `medtune ask` and the evaluation write.

    `max_new_tokens` is the run's cap where it is None. A temperature of 0 is greedy; `seed` makes the draws of a
    higher one those of every other request with that seed. The answer ends before the first of the `stop` texts.
    `strip` leaves out white space around it, as the evaluation does.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    strip: bool = True


@dataclass(frozen=True, slots=True)
class Piece:
    """Text since the last piece, the new tokens so far, and why the answer has ended; None while it goes on."""

    text: str
    new_tokens: int
    finish_reason: FinishReason | None = None


class Answering:
    """An answer under way, safe to use from any thread.

    Iterating waits for each `Piece`, the last of which has a finish reason, and raises EngineError if the answer fails.
    Code that must not wait, such as an event loop's, gives `on_news`: the engine's thread calls it, at once and without
    arguments, when `take` has something. Every piece is handed out once, whoever takes it.
    """

    def __init__(self, prompt_tokens: int, on_news: Callable[[], object] = lambda: None) -> None:
        self.prompt_tokens = prompt_tokens
        self._on_news = on_news
        self._changed = threading.Condition()
        self._text: list[str] = []
        self._new_tokens = 0
        self._finish_reason: FinishReason | None = None
        self._error: EngineError | None = None
        self._is_taken = False
        self._is_cancelled = False

    def cancel(self) -> None:
        """Nobody wants the rest: its place goes to another request. Does nothing to an answer that has ended."""
        with self._changed:
            self._is_cancelled = True
            self._changed.notify_all()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_cancelled

    def take(self) -> Piece | None:
        """All that has come since the last call; None if nothing has. Raises EngineError if the answer failed."""
        with self._changed:
            if self._error is not None:
                raise self._error
            is_last = self._finish_reason is not None and not self._is_taken
            if not self._text and not is_last:
                return None
            text, self._text, self._is_taken = "".join(self._text), [], is_last
            return Piece(text, self._new_tokens, self._finish_reason)

    def __iter__(self) -> Iterator[Piece]:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news)
            piece = self.take()
            if piece is None:  # cancelled, or taken by another
                return
            yield piece
            if piece.finish_reason is not None:
                return

    def result(self) -> Answer:
        """The whole answer, once it is there. Raises EngineError if it fails or is cancelled."""
        pieces = list(self)
        last = pieces[-1] if pieces else None
        if last is None or last.finish_reason is None:
            raise EngineError("the answer was cancelled")
        return Answer("".join(piece.text for piece in pieces), last.new_tokens, last.finish_reason)

    def put(self, text: str, new_tokens: int, finish_reason: FinishReason | None = None) -> None:
        """For the engine: more of the answer."""
        with self._changed:
            self._new_tokens, self._finish_reason = new_tokens, finish_reason
            if text:
                self._text.append(text)
            self._changed.notify_all()
        self._on_news()

    def fail(self, error: EngineError) -> None:
        """For the engine: there will be no more of it."""
        with self._changed:
            self._error = error
            self._changed.notify_all()
        self._on_news()

    def _has_news(self) -> bool:
        ended = self._finish_reason is not None or self._error is not None or self._is_cancelled
        return bool(self._text) or ended
