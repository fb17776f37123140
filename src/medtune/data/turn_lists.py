"""One conversation's list of turns, in any of the forms that tools write, read as roles and texts."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medtune.errors import show_value
from medtune.records import Role, Turn
from medtune.storage.reading import DamagedError, parse_json

_NAMES: Mapping[Role, tuple[str, ...]] = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter", "patient"),
    "assistant": (
        "assistant", "gpt", "chatgpt", "gpt-3.5", "gpt-4", "gpt4", "bard", "bing", "claude", "gemini", "bot", "chatbot",
        "model", "ai", "llm", "doctor",
    ),
}  # fmt: skip
_ROLES: Mapping[str, Role] = {name: role for role, names in _NAMES.items() for name in names}
_TOOLS = re.compile(r"tools?|(?:tool|function)[_-](?:calls?|response|result)|functions?|observation|ipython")
_ROLE_KEYS, _TEXT_KEYS = ("role", "from", "speaker"), ("content", "value", "text")
# A longer cell is no conversation; Python's own syntax takes a hundred times its size to parse.
_MAX_LITERAL_CHARACTERS = 1_000_000


class LeftOutError(Exception):
    """The row cannot be read, by `rule`; `detail` names what is in the way."""

    def __init__(self, rule: str, detail: str = "") -> None:
        super().__init__(rule)
        self.rule, self.detail = rule, detail


def as_list(value: Any) -> list[Mapping[str, Any]] | None:
    """The turns in a cell, as they are written there; None where it holds no list of them.

    In a CSV file it is JSON, or where pandas wrote a list, Python's syntax, which is read and not run. A table of
    lists, which some libraries make of a list of turns, becomes one again.
    """
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping) and value and all(isinstance(cells, list | tuple) for cells in value.values()):
        rows = zip(*value.values(), strict=False)
        value = [dict(zip(value, row, strict=True)) for row in rows]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        return None
    return list(value) if all(isinstance(turn, Mapping) and _is_turn(turn) for turn in value) else None


def read_turns(value: Any, name: str) -> Iterator[Turn]:
    """The turns in a cell of the column `name`; text in a column of prompts is the user's. Raises LeftOutError."""
    turns = as_list(value)
    if turns is None:
        if isinstance(value, str) and value.strip() and name.strip().lower() == "prompt":
            yield Turn("user", value)
            return
        raise LeftOutError("left_out_no_turns")
    for turn in turns:
        yield from _read_turn(turn)


def _parsed(text: str) -> Any:
    text = text.strip()
    if not text.startswith(("[", "{")):
        return None
    try:
        return parse_json(text)
    except DamagedError:
        pass
    if len(text) > _MAX_LITERAL_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _is_turn(turn: Mapping[str, Any]) -> bool:
    return _first(turn, _ROLE_KEYS) is not None or any(_role_name(key) in _ROLES for key in turn)


def _read_turn(turn: Mapping[str, Any]) -> Iterator[Turn]:
    given = _first(turn, _ROLE_KEYS)
    if given is None:  # {"human": …, "assistant": …}
        for key, content in turn.items():
            if role := _ROLES.get(_role_name(key)):
                yield Turn(role, _text(content))
        return
    name = _role_name(given)
    if _TOOLS.fullmatch(name) or turn.get("tool_calls") or turn.get("function_call"):
        raise LeftOutError("left_out_tools")
    if (known := _ROLES.get(name)) is None:
        raise LeftOutError("left_out_roles", show_value(given))
    # OpenAI's weight and axolotl's train say which answers are only read.
    learned = turn.get("weight") != 0 and turn.get("train") is not False
    yield Turn(known, _text(_first(turn, _TEXT_KEYS)), learned=learned or known != "assistant")


def _first(turn: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _role_name(value: Any) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _text(content: Any) -> str:
    """A turn's text; parts of text are joined as lines. Raises LeftOutError for a part of another kind."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, Sequence):
        raise LeftOutError("left_out_parts", type(content).__name__)
    return "\n".join(map(_part_text, content))


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if isinstance(text, str) and part.get("type", "text") in ("text", "input_text", "output_text"):
        return text
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise LeftOutError("left_out_parts", show_value(kind))
