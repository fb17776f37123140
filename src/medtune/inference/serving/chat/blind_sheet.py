"""The blinded sheet of a chat, written as it is rated, in the files that `medtune human score` reads."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from medtune.errors import DataError, RunDirError
from medtune.evaluation.human.blinding import (
    KEY_FILE,
    ChatOrigin,
    Item,
    Key,
    KeyEntry,
    blind_pair,
    draw_sheet_name,
    draw_sides,
    key_json,
)
from medtune.evaluation.human.rubric import PREFERENCES, RATING_COLUMNS, SCALE, Side
from medtune.evaluation.human.spreadsheet import sheet_csv
from medtune.records import Prediction
from medtune.storage.writing import replacing_file

# Sides are drawn in blocks of so many items, half of them each.
_BLOCK = 4
_MOST_LETTERS = 60
_NO_FILE_NAME = re.compile(r"[^\w-]+")


@dataclass
class _Rater:
    name: str
    file: str
    items: list[Item] = field(default_factory=list)
    given: dict[str, dict[str, str]] = field(default_factory=dict)


class BlindSheet:
    """One server's sheet, for all of its raters; safe to use from any thread.

    Its folder, `human-chat-DATE` in `place`, is made with the first item and never one that was there. It holds the key
    and a filled sheet for each rater, replaced in one piece at every rating, so that none is lost however the process
    ends. An item has its key on disk before anybody sees it.
    """

    def __init__(self, place: Path, origin: ChatOrigin) -> None:
        self.place = place
        self.folder: Path | None = None
        self._origin = origin
        self._sheet = draw_sheet_name()
        self._entries: dict[str, KeyEntry] = {}
        self._raters: dict[str, _Rater] = {}
        self._sides: list[Side] = []
        self._lock = threading.Lock()

    def add(self, rater: str, baseline: Prediction, tuned: Prediction) -> tuple[Item, Side]:
        """A new item of two complete answers to one question, for `rater`, and the tuned model's side, which is not.

        An `id` of "" is no test row.

        Raises DataError for a name that is none, RunDirError or DiskError where nothing can be written.
        """
        with self._lock:
            person = self._rater(rater)
            if not self._sides:
                self._sides = draw_sides(_BLOCK)
            name = str(len(self._entries) + 1)
            item, entry = blind_pair(name, (baseline, tuned), self._sides[-1])
            self._write(KEY_FILE, key_json(Key(self._sheet, {**self._entries, name: entry}, chat=self._origin)))
            self._sides.pop()
            self._entries[name] = entry
            person.items.append(item)
            self._write_sheet(person)
            return item, entry.tuned

    def rate(self, rater: str, item: Item, values: Mapping[str, str]) -> dict[str, str]:
        """Take what `rater` gave `item`: column → "1" to "5", "a", "b" or "tie", or a comment; "" takes it back.

        Equal answers are rated together, and neither is preferred. Returns all that is given to the item.
        """
        with self._lock:
            person = self._rater(rater)
            given = {**person.given.get(item.name, {}), **values}
            if item.answer_a == item.answer_b:
                given |= {_other(column): value for column, value in values.items() if column in RATING_COLUMNS}
                given["preference"] = "tie"
            given = {column: text for column, text in given.items() if _is_valid(column, text)}
            person.given[item.name] = given
            self._write_sheet(person)
            return given

    @property
    def ratings_files(self) -> list[Path]:
        """Where each rater's ratings are; none before the first item."""
        return [self.folder / person.file for person in self._raters.values()] if self.folder else []

    def _rater(self, name: str) -> _Rater:
        name = " ".join(name.split())
        if not name or len(name) > _MOST_LETTERS or not name.isprintable():
            raise DataError("the rater's name", f"must have 1 to {_MOST_LETTERS} letters", "fill it in")
        person = self._raters.get(name.casefold())
        if person is None:
            stem = f"ratings-{self._sheet}-{_NO_FILE_NAME.sub('-', name)}"
            taken = {other.file.casefold() for other in self._raters.values()}
            files = (f"{stem}{'' if number == 1 else f'-{number}'}.csv" for number in range(1, len(taken) + 2))
            person = _Rater(name, next(file for file in files if file.casefold() not in taken))
            self._raters[name.casefold()] = person
        return person

    def _write_sheet(self, person: _Rater) -> None:
        self._write(person.file, sheet_csv(self._sheet, person.items, person.name, person.given))

    def _write(self, name: str, text: str) -> None:
        if self.folder is None:
            self.folder = _new_folder(self.place)
        # Line ends as they are: a sheet has its own.
        with replacing_file(self.folder / name) as temporary:
            temporary.write_bytes(text.encode())


def _other(column: str) -> str:
    return column[:-1] + {"a": "b", "b": "a"}[column[-1]]


def _is_valid(column: str, text: str) -> bool:
    if column in RATING_COLUMNS:
        return text in map(str, SCALE)
    return bool(text.strip()) and (column == "comment" or (column == "preference" and text in PREFERENCES))


def _new_folder(place: Path) -> Path:
    stem = f"human-chat-{datetime.now(UTC).astimezone():%Y-%m-%d}"
    for number in range(1, 1000):
        folder = place / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise RunDirError(folder, f"cannot be made ({error.strerror})") from None
        return folder
    raise RunDirError(place / stem, "and 999 more are there already", "move them away")
