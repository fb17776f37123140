"""Answers in the shapes that OpenAI's clients read: whole, as events of a stream, and as errors."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from medtune.inference.serving.answering import Piece


def as_json(value: object) -> bytes:
    """Compact, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: object) -> bytes:
    """One event of a stream."""
    return b"data: " + as_json(value) + b"\n\n"


STREAM_END = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """What all parts of one response repeat: whether it is a chat's, the model's name, an id and the time."""

    is_chat: bool
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, last: Piece, prompt_tokens: int) -> dict[str, Any]:
        """The response to a request that does not stream."""
        message = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = self._choice(message if self.is_chat else {"text": text}, last.finish_reason)
        return {**self._frame([choice], is_stream=False), "usage": _usage(prompt_tokens, last.new_tokens)}

    def start(self) -> Iterator[bytes]:
        """What a stream begins with."""
        if self.is_chat:
            yield event(self._frame([self._choice({"delta": {"role": "assistant", "content": ""}}, None)]))

    def more(self, piece: Piece) -> Iterator[bytes]:
        """A piece of a stream; the reason why it ends has an event of its own."""
        if piece.text:
            yield event(self._frame([self._choice(self._text_part(piece.text), None)]))
        if piece.finish_reason is not None:
            part: dict[str, Any] = {"delta": {}} if self.is_chat else {"text": ""}
            yield event(self._frame([self._choice(part, piece.finish_reason)]))

    def usage(self, prompt_tokens: int, new_tokens: int) -> bytes:
        """The event that counts tokens, which has no choice."""
        return event({**self._frame([]), "usage": _usage(prompt_tokens, new_tokens)})

    def _text_part(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}} if self.is_chat else {"text": text}

    def _choice(self, part: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, **part, "logprobs": None, "finish_reason": finish_reason}

    def _frame(self, choices: list[dict[str, Any]], *, is_stream: bool = True) -> dict[str, Any]:
        kind = "text_completion"
        if self.is_chat:
            kind = "chat.completion.chunk" if is_stream else "chat.completion"
        prefix = "chatcmpl" if self.is_chat else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def _usage(prompt_tokens: int, new_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": new_tokens,
        "total_tokens": prompt_tokens + new_tokens,
    }
