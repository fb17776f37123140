"""What the sections of the configuration share: frozen, strict, and nothing in them that no file can hold."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# YAML and JSON know no tuples: a list is what a user can write.
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False)]


class Section(BaseModel):
    """A part of the configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        try:
            json.dumps(value, ensure_ascii=False, default=lambda section: None).encode()
        except UnicodeEncodeError:
            raise ValueError(_NO_CHARACTER) from None
        return value


# YAML and JSON can spell it, and no file and no tokenizer takes it.
_NO_CHARACTER = "holds half of a surrogate pair, which is no character; leave it out"
# What pydantic says in words of Python.
_PLAIN_WORDS = {
    "model_type": "must be a section of keys",
    "tuple_type": "must be a list",
    "too_short": "must hold at least {min_length} item",
    "string_unicode": _NO_CHARACTER,
}


def in_plain_words(problem: Any) -> str:
    """What one of pydantic's `errors()` says is wrong with a value."""
    kind, context = problem["type"], problem.get("ctx", {})
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        message = f"must be {context['expected']}"
    elif kind in _PLAIN_WORDS:
        message = _PLAIN_WORDS[kind].format(**context)
    return f"{message[0].lower()}{message[1:]}"
