"""Records of a source become pairs of question and answer; each one that cannot is kept with the reason."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from types import MappingProxyType
from typing import Any

from medtune.config.sources import ColumnsSection
from medtune.data import conversations, exam_rows
from medtune.data.cleaning import clean_text
from medtune.data.columns import column_names, find_columns
from medtune.data.conversations import read_conversations
from medtune.data.exam_rows import read_exam_rows
from medtune.data.table_files import require_text_size
from medtune.errors import DataError, show_value
from medtune.records import QAPair

# Why a record is no pair, and what a count of such rows is called.
LEFT_OUT = {
    **{rule: f"with {says}" for rule, says in conversations.LEFT_OUT.items()},
    **exam_rows.LEFT_OUT,
    "unanswered": "without an answer",
    "too_few_cells": "with too few cells",
    "too_many_cells": "with too many cells",
}


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs in the order of their records, and with its reason each record that is none.

    `notes` tell the columns, and what conversations or exams held; `conversations` counts what the former held by rule.
    """

    pairs: list[QAPair]
    left_out: list[tuple[str, QAPair]]
    notes: tuple[str, ...] = ()
    conversations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowIds:
    """The ids of the rows so far, of one file or of several that are read as one source."""

    taken: set[str] = field(default_factory=set)
    copies: Counter[str] = field(default_factory=Counter)

    def add(self, given: str, question: str, answer: str, origin: str) -> str:
        """The id of one more row. Raises DataError if it is `given` and in another row."""
        if given in self.taken:
            fix = "ids must be unique, or leave data.columns.id out"
            raise DataError(origin, f"id {show_value(given)} is in two rows", fix)
        id = given or row_id(question, answer, self.taken, self.copies)
        self.taken.add(id)
        return id


def pairs_of(
    records: Iterable[Mapping[str, Any]],
    columns: ColumnsSection,
    origin: str,
    *,
    narrow: Mapping[int, int] = MappingProxyType({}),
    ids: RowIds | None = None,
) -> Pairs:
    """The question and answer of each record.

    `narrow` are the places of records that end before their last column. Raises DataError for columns that are not
    there, for values that are no text, and for an id that two rows have.
    """
    records, ids = list(records), ids or RowIds()
    if not records:
        return Pairs([], [])
    talks = read_conversations(records, columns, origin)
    exam = None if talks else read_exam_rows(records, columns)
    left_out: list[tuple[str, QAPair]] = []
    lines: tuple[str, ...] = ()
    if shaped := talks or exam:
        records, narrow, lines = shaped.records, {}, shaped.lines
        left_out += [(rule, _unread(record)) for rule, record in shaped.left_out]
    if not records:
        return Pairs([], left_out, lines)
    found = find_columns(column_names(records), exam.columns if exam else columns, origin)
    pairs: list[QAPair] = []
    for index, values in enumerate(read_values(records, found.names, origin)):
        if not values["answer"].strip():
            is_short = index in narrow and records[index].get(found.names["answer"] or "") is None
            reason = "too_few_cells" if is_short else "unanswered"
            left_out.append((reason, without_answer(values)))
            continue
        turns = talks.turns[index] if talks else ()
        # An id is of all that was said: many a conversation ends with the same words.
        said = json.dumps([values["question"], *map(astuple, turns)]) if turns else values["question"]
        values["id"] = ids.add(clean_text(values["id"]), said, values["answer"], origin)
        pairs.append(QAPair(**values, turns=turns))  # a column for each of these fields
    notes = tuple(note for note in (found.note, *lines) if note)
    return Pairs(pairs, left_out, notes, talks.counts if talks else {})


def read_values(
    records: Iterable[Mapping[str, Any]], names: Mapping[str, str | None], origin: str, first: int = 0
) -> Iterator[dict[str, Any]]:
    """For each record the fields of a pair, from the columns in `names`; `first` is the place of the first of them.

    Raises DataError for a value that is no text.
    """
    for index, record in enumerate(records, start=first):
        yield _values(record, names, index, origin)


def _unread(record: Mapping[str, Any]) -> QAPair:
    text = json.dumps(record, ensure_ascii=False, default=str).encode(errors="replace").decode()
    return QAPair("", "", text, "", raw_question=text)


def without_answer(values: Mapping[str, Any]) -> QAPair:
    """A row that is left out, with what it asks."""
    id, question = clean_text(values["id"]), values["question"]
    return QAPair(id, "", question, "", raw_question=question.encode(errors="replace").decode())


def require_columns(records: Iterable[Mapping[str, Any]], columns: ColumnsSection, origin: str) -> None:
    """Raises DataError if records lack a column that they must have."""
    records = list(records)
    if talks := read_conversations(records, columns, origin) if records else None:
        records = talks.records
    elif exam := read_exam_rows(records, columns):
        records, columns = exam.records, exam.columns
    if present := column_names(records):
        find_columns(present, columns, origin)


def _values(record: Mapping[str, Any], names: Mapping[str, str | None], index: int, origin: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, column in names.items():
        value = record.get(column) if column else None
        if key == "answer" and isinstance(value, list):
            answers = [_text(one, key, index, origin, "a list with ") for one in value]
            answers = [answer for answer in answers if answer.strip()]
            values["references"] = tuple(answers) if len(answers) > 1 else ()
            value = answers[0] if answers else None
        values[key] = _text(value, key, index, origin)
    return values


def _text(value: Any, key: str, index: int, origin: str, within: str = "") -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return require_text_size(value, f"{origin}: row {index}: {key}")
    if key in ("question", "context", "answer") or not isinstance(value, int | float):
        fix = "convert that column to text"
        raise DataError(origin, f"row {index}: {key} is {within}a {type(value).__name__}, not text", fix)
    return str(value)


def row_id(question: str, answer: str, taken: Collection[str], copies: Counter[str]) -> str:
    """An id for a row that has none: a hash of its text, so that it does not depend on the row's place.

    Equal rows are told apart by a number. `copies` counts them, so that many need not be looked through for each.
    """
    text = json.dumps([question, answer]).encode("utf-8")
    name = hashlib.sha256(text).hexdigest()[:12]
    while True:
        copies[name] += 1
        candidate = name if copies[name] == 1 else f"{name}-{copies[name]}"
        if candidate not in taken:
            return candidate
