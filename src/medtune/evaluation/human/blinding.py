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
class ChatOrigin:
    """The model that raters asked in a chat, by its folder's name or Hub id, and the cap on its greedy answers."""

    model: str
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Key:
    """Opens one sheet. `seed` chose the rows; `predictions_sha256` names the files that the answers come from.

    With `chat` instead, raters chose the questions in a chat; an item whose `row` is empty is a question of their own.
    """

    sheet: str
    items: dict[str, KeyEntry]
    seed: int | None = None
    predictions_sha256: dict[str, str] = field(default_factory=dict)
    chat: ChatOrigin | None = None


def blind(pairs: Sequence[tuple[Prediction, Prediction]], seed: int) -> tuple[list[Item], Key]:
    """Put `pairs`, a baseline's and a tuned model's answer each, in a random order and on random sides.

    Each side has the tuned model's answer equally often (an odd item's side is drawn), so that raters who lean to
    one side favour neither model.
    """
    shuffled = list(pairs)
    _random.shuffle(shuffled)
    items, entries = [], {}
    for number, (pair, side) in enumerate(zip(shuffled, draw_sides(len(shuffled)), strict=True), start=1):
        item, entry = blind_pair(str(number), pair, side)
        items.append(item)
        entries[item.name] = entry
    return items, Key(sheet=draw_sheet_name(), items=entries, seed=seed)


def blind_pair(name: str, pair: tuple[Prediction, Prediction], side: Side) -> tuple[Item, KeyEntry]:
    """One item called `name` of a baseline's and a tuned model's answer, the latter on `side`, and its key."""
    baseline, tuned = pair
    answers = [_shown(tuned.prediction), _shown(baseline.prediction)]
    first, second = answers if side == "a" else reversed(answers)
    item = Item(name, tuned.question.strip(), tuned.reference.strip(), first, second)
    return item, KeyEntry(tuned.id, tuned.qtype, tuned.group, side, identical=first == second)


def draw_sheet_name() -> str:
    """A name for a sheet that no other has."""
    return "".join(_random.choices(_SHEET_LETTERS, k=_SHEET_LENGTH))


def key_json(key: Key) -> str:
    """The key as JSON, indented."""
    return TypeAdapter(Key).dump_json(key, indent=2, exclude_none=True).decode() + "\n"


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


def draw_sides(n: int) -> list[Side]:
    """The tuned model's side of `n` items in a random order, each side equally often; an odd item's is drawn."""
    odd = _random.sample(SIDES, k=n % 2)
    sides = [*SIDES * (n // 2), *odd]
    _random.shuffle(sides)
    return sides


def _shown(answer: str) -> str:
    # White space at the ends cannot be seen, and could tell one model from the other.
    return answer.strip() or _EMPTY_ANSWER
