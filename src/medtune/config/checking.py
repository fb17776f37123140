"""Values checked against the schema, every problem told in one line that names the key and what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from medtune.config.schema import Config
from medtune.config.section import NO_CHARACTER
from medtune.errors import ConfigError, Option, Problem, show_value


def parse_config(values: dict[str, Any], *, origin: str) -> Config:
    """Check `values` against the schema.

    Raises ConfigError with one line a problem, each naming `origin`, the key, the value and what would be right.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A list whose items are wrong is not too short besides.
        lists = {problem["loc"][:-1] for problem in problems}
        found = [
            _describe(problem, origin)
            for problem in problems
            if problem["type"] != "too_short" or problem["loc"] not in lists
        ]
        raise ConfigError.together(dict.fromkeys(found)) from None


def _describe(problem: Any, origin: str) -> Problem:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return Problem(f"{origin}: {_dotted(problem['loc'])}", "unknown key", _suggest(problem["loc"]))
    # A union reports one problem a member, with the member's type as the path's last part; the key is what matters.
    path = _dotted(part for part in problem["loc"] if not _is_union_tag(str(part)))
    what = f"{origin}: {path}"
    if kind == "missing":
        return Problem(what, "missing", ("give it in the recipe or with ", Option("set", f"{path}=…")))
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        message = f"must be {context['expected']}"
    elif kind in _PLAIN_WORDS:
        message = _PLAIN_WORDS[kind].format(**context)
    return Problem(what, f"{message[0].lower()}{message[1:]}, got {show_value(problem['input'])}")


# What pydantic says in words of Python.
_PLAIN_WORDS = {
    "model_type": "must be a section of keys",
    "tuple_type": "must be a list",
    "too_short": "must hold at least {min_length} item",
    "string_unicode": NO_CHARACTER,
}


def _dotted(parts: Iterable[int | str]) -> str:
    # A key may hold anything, line breaks too; a problem is one line.
    shown = ".".join(str(part) if str(part).isprintable() else repr(part) for part in parts)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _is_union_tag(part: str) -> bool:
    return part in {"str", "int", "float", "constrained-int"} or "[" in part


def _suggest(path: Sequence[str]) -> str:
    import difflib

    *parents, key = path
    section: Any = Config
    for parent in parents:
        section = section.model_fields[parent].annotation
    fields = list(section.model_fields)
    near = difflib.get_close_matches(key, fields, n=1)
    return f"did you mean {'.'.join([*parents, near[0]])}?" if near else f"known keys here: {', '.join(fields)}"
