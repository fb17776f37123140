"""Removes the models' names from their answers, and keeps them in a separate key."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from medtune.errors import DataError
from medtune.evaluation.human.rubric import SIDES, Side
from medtune.records import Prediction

KEY_FILE = "key.json"

# Consonants: a spreadsheet takes no such word for a number or a date, and it spells nothing.
_SHEET_LETTERS = "bcdfghjkmnpqrstvwxz"
_SHEET_LENGTH = 8
_EMPTY_ANSWER = "(empty answer)"

# The system's randomness: a run's configuration holds its seed, which must not reveal the sides.
_random = secrets.SystemRandom()


@dataclass(frozen=True, slots=True)
class Item:
    """One row as a rater sees it. `name` is its place on the sheet, "1" first, and says nothing about the row."""

    name: str
    question: str
    reference: str
    answer_a: str
    answer_b: str


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """The part of an item that raters must not see: its row, and which side has the tuned model's answer."""

    row: str
    qtype: str
    group: str
    tuned: Side
    identical: bool


@dataclass(frozen=True, slots=True)
class Key:
    """Opens one sheet. `seed` chose the rows; `predictions_sha256` names the files that the answers come from."""

    sheet: str
    items: dict[str, KeyEntry]
    seed: int
    predictions_sha256: dict[str, str] = field(default_factory=dict)


def blind(pairs: Sequence[tuple[Prediction, Prediction]], seed: int) -> tuple[list[Item], Key]:
    """Put `pairs`, a baseline's and a tuned model's answer each, in a random order and on random sides.

    Each side has the tuned model's answer equally often (an odd item's side is drawn), so that raters who lean to
    one side favour neither model.
    """
    shuffled = list(pairs)
    _random.shuffle(shuffled)
    items, entries = [], {}
    for number, ((baseline, tuned), side) in enumerate(zip(shuffled, _sides(len(shuffled)), strict=True), start=1):
        answers = [_shown(tuned.prediction), _shown(baseline.prediction)]
        first, second = answers if side == "a" else reversed(answers)
        name = str(number)
        items.append(Item(name, tuned.question.strip(), tuned.reference.strip(), first, second))
        entries[name] = KeyEntry(tuned.id, tuned.qtype, tuned.group, side, identical=first == second)
    sheet = "".join(_random.choices(_SHEET_LETTERS, k=_SHEET_LENGTH))
    return items, Key(sheet=sheet, items=entries, seed=seed)


def key_json(key: Key) -> str:
    """The key as JSON, indented."""
    return TypeAdapter(Key).dump_json(key, indent=2).decode() + "\n"


def parse_key(text: str | bytes, name: str) -> Key:
    """Read what `key_json` wrote. Raises DataError, with the file's `name`, for anything else."""
    try:
        return TypeAdapter(Key).validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        what = f"{place}: {problem['msg']}" if place else problem["msg"]
        fix = "restore it from where it was written"
        raise DataError(name, f"not a key of `medtune human export` ({what})", fix) from None


def _sides(n: int) -> list[Side]:
    odd = _random.sample(SIDES, k=n % 2)
    sides = [*SIDES * (n // 2), *odd]
    _random.shuffle(sides)
    return sides


def _shown(answer: str) -> str:
    # White space at the ends cannot be seen, and could tell one model from the other.
    return answer.strip() or _EMPTY_ANSWER
