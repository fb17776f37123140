"""Sources of question-answer rows: Hub data sets, local tables, and MedQuAD's original XML."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from medtune.config.schema import ColumnsSection
from medtune.data.cleaning import clean_text
from medtune.data.conversations import read_conversations
from medtune.data.table_files import (
    COLUMNS_SHOWN,
    TABLE_SUFFIXES,
    read_jsonl,
    read_table,
    require_text_size,
    show_column,
    unknown_kind,
)
from medtune.errors import DataError, Problem, show_value
from medtune.records import QAPair
from medtune.storage.hub import dataset_revision, load_hub_dataset

DEMO_SOURCE = "medtune:demo"


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Rows as the source gives them, before any cleaning.

    `unanswered` counts rows that had no answer and are not among `pairs`; `revision` is the commit of a Hub set.
    `counts` are of what reading conversations left out or changed, by rule, and `lines` say that.
    """

    pairs: list[QAPair]
    unanswered: int = 0
    revision: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 over every field of every row."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            # Rows without turns keep the fingerprint that they had before there were any.
            values = {name: value for name, value in asdict(pair).items() if name != "turns" or value}
            digest.update(json.dumps(values).encode("utf-8"))
        return digest.hexdigest()


def read_source(source: str, columns: ColumnsSection, revision: str | None = None) -> SourceRows:
    """Read every row of `source`.

    Raises DataError, in one line, if it is missing, unreadable, empty, or lacks the question or the answer column.
    """
    revision_read = None
    if source == DEMO_SOURCE:
        demo = files("medtune.data") / "demo" / "rows.jsonl"
        records: Iterable[Mapping[str, Any]] = read_jsonl(source, demo.read_bytes())
    elif os.path.isdir(source):  # Path.is_dir would raise for a name that is too long
        from medtune.data.medquad_xml import read_medquad_xml

        return SourceRows(*read_medquad_xml(Path(source)))
    elif os.path.isfile(source):
        records = read_table(Path(source))
    else:
        _require_hub_name(source)
        records, revision_read = load_hub_dataset(source, revision)
    return replace(_to_pairs(records, columns, source), revision=revision_read)


def check_source(source: str, revision: str | None = None, columns: ColumnsSection | None = None) -> None:
    """Raises DataError if `source` clearly cannot be read or, given `columns`, if a table lacks them.

    With `columns`, a Hub data set is downloaded, and the data stage finds it in the cache.
    """
    path = Path(source)
    if source == DEMO_SOURCE or os.path.isdir(source):
        return
    records: Iterable[Mapping[str, Any]] = ()
    if os.path.isfile(source):
        if not path.name.lower().endswith(TABLE_SUFFIXES):
            raise unknown_kind(path)
        records = read_table(path) if columns else ()
    else:
        _require_hub_name(source)
        if columns:
            records, _ = load_hub_dataset(source, revision)
        else:
            dataset_revision(source, revision)
    records = list(records)
    conversations = read_conversations(records, columns, source) if columns and records else None
    present = _column_names(conversations.records if conversations else records)
    if columns and present:
        _resolve_columns(present, columns, source)


def _require_hub_name(source: str) -> None:
    if source.endswith(TABLE_SUFFIXES) or source.startswith((".", "/", "~")):
        raise DataError(source, "no such file or folder", "give data.source an existing path or a Hub data set's id")


def _to_pairs(records: Iterable[Mapping[str, Any]], columns: ColumnsSection, origin: str) -> SourceRows:
    pairs: list[QAPair] = []
    unanswered = 0
    seen: set[str] = set()
    copies: Counter[str] = Counter()
    records = list(records)
    conversations = read_conversations(records, columns, origin)
    if conversations:
        records = conversations.records
    names = _resolve_columns(_column_names(records), columns, origin) if records else {}
    for index, record in enumerate(records):
        values: dict[str, Any] = {
            key: _text(record.get(column) if column else None, key, index, origin) for key, column in names.items()
        }
        if not values["answer"].strip():
            unanswered += 1
            continue
        given = clean_text(values["id"])
        turns = conversations.turns[index] if conversations else ()
        # An id is of all that was said: many a conversation ends with the same words.
        said = json.dumps([values["question"], *map(astuple, turns)]) if turns else values["question"]
        values["id"] = given or row_id(said, values["answer"], seen, copies)
        if values["id"] in seen:
            fix = "ids must be unique, or leave data.columns.id out"
            raise DataError(origin, f"id {show_value(given)} is in two rows", fix)
        seen.add(values["id"])
        pairs.append(QAPair(**values, turns=turns))  # a column for each of these fields
    if not pairs:
        raise DataError(origin, f"no rows with an answer ({unanswered} without)", "there is nothing to train on")
    if conversations:
        return SourceRows(pairs, unanswered, counts=conversations.counts, lines=conversations.lines)
    return SourceRows(pairs, unanswered)


def _column_names(records: Iterable[Mapping[str, Any]]) -> list[str]:
    # From all rows: in JSONL a first row without a focus must not hide the others'.
    return list(dict.fromkeys(name for record in records for name in record))


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


def _resolve_columns(present: list[str], columns: ColumnsSection, origin: str) -> dict[str, str | None]:
    resolved: dict[str, str | None] = {}
    missing = []
    for key, wanted in columns.model_dump(exclude={"messages"}).items():
        matches = [name for name in present if name == wanted]
        matches = matches or [name for name in present if wanted is not None and name.lower() == wanted.lower()]
        resolved[key] = matches[0] if len(matches) == 1 else None
        # A default name may be absent; another must be there, or grouping would be lost silently.
        default = ColumnsSection.model_fields[key].default
        required = key in ("question", "answer") or wanted not in (None, default)
        if resolved[key] is None and required:
            shown = ", ".join(map(show_column, present[:COLUMNS_SHOWN])) + (" …" if present[COLUMNS_SHOWN:] else "")
            problem, fix = f"no column {wanted!r}; it has {shown}", f"name yours in data.columns.{key}"
            missing.append(Problem(origin, problem, fix))
    if missing:
        raise DataError.together(missing)
    return resolved


def _text(value: Any, key: str, index: int, origin: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return require_text_size(value, f"{origin}: row {index}: {key}")
    if key in ("question", "answer") or not isinstance(value, int | float):
        fix = "convert that column to text"
        raise DataError(origin, f"row {index}: {key} is a {type(value).__name__}, not text", fix)
    return str(value)
