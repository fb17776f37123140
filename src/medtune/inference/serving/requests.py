"""Requests as OpenAI's clients send them, read and refused field by field; an error has OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medtune.errors import show_value
from medtune.inference.serving.answering import Options
from medtune.records import Role, Turn
from medtune.storage.reading import DamagedError, parse_json

# What nothing here depends on.
_WITHOUT_EFFECT = frozenset({
    "metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user",
})  # fmt: skip
# What is not done here, by the values that ask for nothing.
_NOT_DONE: Mapping[str, tuple[object, ...]] = {
    "audio": (), "best_of": (1,), "echo": (False,), "frequency_penalty": (0,), "function_call": ("none", "auto"),
    "functions": ([],), "logit_bias": ({},), "logprobs": (False,), "modalities": (["text"],), "n": (1,),
    "prediction": (), "presence_penalty": (0,), "reasoning_effort": (), "response_format": ({"type": "text"},),
    "suffix": ("",), "tool_choice": ("none", "auto"), "tools": ([],), "top_logprobs": (0,), "verbosity": (),
    "web_search_options": (),
}  # fmt: skip
_OPTIONS = frozenset({
    "max_completion_tokens", "max_tokens", "model", "seed", "stop", "stream", "stream_options", "temperature", "top_p",
})  # fmt: skip
_ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
}  # fmt: skip
_MAX_STOPS, _MAX_STOP_CHARACTERS = 4, 256
# A template is read for each number of turns, which must not become a client's means to keep the server busy.
_MAX_MESSAGES = 256


class RequestError(Exception):
    """A request that is not answered: the HTTP `status`, the reason, and the field that it is about."""

    def __init__(
        self, status: int, message: str, field: str | None = None, *, code: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.code, self.retry_after = status, message, field, code, retry_after

    @property
    def body(self) -> dict[str, object]:
        """As OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": self.code}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: to which model, how it is answered, and what is asked, one of the last two."""

    model: str
    options: Options
    stream: bool
    include_usage: bool
    turns: tuple[Turn, ...] = ()
    prompt: str | tuple[int, ...] = ""


def read_chat(content: bytes) -> Asked:
    """The body of a request to /v1/chat/completions. Raises RequestError."""
    fields = _read_fields(content, "messages")
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "must be a list of messages, and not empty")
    if len(messages) > _MAX_MESSAGES:
        raise _wrong("messages", f"may be up to {_MAX_MESSAGES}")
    turns = tuple(_read_message(message, f"messages[{place}]") for place, message in enumerate(messages))
    return Asked(*_read_common(fields, strip=True), turns=turns)


def read_completion(content: bytes) -> Asked:
    """The body of a request to /v1/completions; the prompt is text or token ids. Raises RequestError."""
    fields = _read_fields(content, "prompt")
    return Asked(*_read_common(fields, strip=False), prompt=_read_prompt(fields.get("prompt")))


def _read_fields(content: bytes, own: str) -> dict[str, Any]:
    try:
        fields = parse_json(content.decode("utf-8"))
    except (DamagedError, UnicodeDecodeError):
        raise RequestError(400, "the body is not valid JSON in UTF-8") from None
    if not isinstance(fields, dict):
        raise RequestError(400, "the body must be a JSON object")
    given = {name: value for name, value in fields.items() if value is not None}
    for name, value in given.items():
        if name in _NOT_DONE and not any(_same(value, neutral) for neutral in _NOT_DONE[name]):
            raise _wrong(name, "is not supported here", code="unsupported_parameter")
        if name not in (own, *_OPTIONS, *_WITHOUT_EFFECT, *_NOT_DONE):
            raise _wrong(show_value(name)[1:-1], "no such field", code="unknown_parameter")
    return given


def _same(value: object, neutral: object) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _read_common(fields: Mapping[str, Any], *, strip: bool) -> tuple[str, Options, bool, bool]:
    model = fields.get("model")
    if not isinstance(model, str):
        raise _wrong("model", "must be the name of a model")
    stream = _read_bool(fields.get("stream"), "stream")
    more = fields.get("stream_options", {})
    if not isinstance(more, dict) or (more and not stream) or more.keys() - {"include_usage", "include_obfuscation"}:
        raise _wrong("stream_options", "must be an object with include_usage, of a request that streams")
    cap_name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    options = Options(
        max_new_tokens=_read_int(fields.get(cap_name), cap_name, 1),
        temperature=_read_number(fields.get("temperature"), "temperature", 0, 2, default=0),
        top_p=_read_number(fields.get("top_p"), "top_p", 0, 1, default=1),
        seed=_read_int(fields.get("seed"), "seed", -(2**63)),
        stop=_read_stop(fields.get("stop", [])),
        strip=strip,
    )
    return model, options, stream, _read_bool(more.get("include_usage"), "stream_options.include_usage")


def _read_message(message: Any, place: str) -> Turn:
    if not isinstance(message, dict):
        raise _wrong(place, "must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(f"{place}.role", f"must be one of {', '.join(_ROLES)}")
    for name, value in message.items():
        if name not in ("role", "content", "name", "refusal", "annotations") and value not in (None, []):
            raise _wrong(f"{place}.{show_value(name)[1:-1]}", "is not supported here", code="unsupported_parameter")
    return Turn(_ROLES[role], _read_content(message.get("content"), f"{place}.content"))


def _read_content(content: Any, place: str) -> str:
    if isinstance(content, str):
        return _read_text(content, place)
    if not isinstance(content, list) or not content:
        raise _wrong(place, "must be text, or a list of parts of text")
    return "\n".join(_read_part(part, f"{place}[{number}]") for number, part in enumerate(content))


def _read_part(part: Any, place: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise _wrong(f"{place}.type", "only parts of text are supported", code="unsupported_parameter")
    return _read_text(part.get("text"), f"{place}.text")


def _read_text(text: Any, place: str) -> str:
    if not isinstance(text, str):
        raise _wrong(place, "must be text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half of a pair, which JSON can spell
        raise _wrong(place, "holds characters that are none") from None
    return text


def _read_prompt(prompt: Any) -> str | tuple[int, ...]:
    if isinstance(prompt, list) and len(prompt) == 1 and not _is_int(prompt[0]):
        prompt = prompt[0]  # a batch of one
    if isinstance(prompt, str):
        return _read_text(prompt, "prompt")
    if isinstance(prompt, list) and prompt and all(map(_is_int, prompt)):
        return tuple(prompt)
    raise _wrong("prompt", "must be one text, or one list of token ids")


def _read_stop(stop: Any) -> tuple[str, ...]:
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list) or len(texts) > _MAX_STOPS:
        raise _wrong("stop", f"must be a text, or a list of up to {_MAX_STOPS}")
    for text in texts:
        if not _read_text(text, "stop") or len(text) > _MAX_STOP_CHARACTERS:
            raise _wrong("stop", f"texts must have from 1 to {_MAX_STOP_CHARACTERS} characters")
    return tuple(texts)


def _read_bool(value: Any, name: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _wrong(name, "must be true or false")


def _read_int(value: Any, name: str, lowest: int) -> int | None:
    if value is None or (_is_int(value) and lowest <= value < 2**63):
        return value  # type: ignore[no-any-return]
    raise _wrong(name, f"must be a whole number{' from 1 on' if lowest == 1 else ''}")


def _read_number(value: Any, name: str, lowest: float, highest: float, *, default: float) -> float:
    if value is None:
        return default
    if (_is_int(value) or isinstance(value, float)) and lowest <= value <= highest:
        return float(value)
    raise _wrong(name, f"must be a number from {lowest} to {highest}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(field: str, problem: str, *, code: str | None = None) -> RequestError:
    return RequestError(400, f"{field}: {problem}", field, code=code)
