"""Sources of question-answer rows: Hub data sets, local tables and folders, and MedQuAD's original XML."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from medtune.config.sources import AS_FOUND, ColumnsSection, SourceSection, TableSection
from medtune.data.exam_rows import LEFT_OUT as EXAM_LEFT_OUT
from medtune.data.pairs import LEFT_OUT, RowIds, pairs_of, require_columns
from medtune.data.table_files import MAX_TABLE_BYTES, TABLE_SUFFIXES, read_table, unknown_kind
from medtune.data.tables.json_files import read_lines
from medtune.data.tables.saved_data_set import is_saved_data_set, read_saved_data_set
from medtune.data.tables.table import ReadTable
from medtune.errors import DataError
from medtune.records import LATER_FIELDS, QAPair
from medtune.runtime.terminal import one_line
from medtune.storage.hub import chosen_splits, dataset_revision, load_hub_dataset

DEMO_SOURCE = "medtune:demo"
# JSON files that describe a data set and hold none of its rows.
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json")


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Rows as the source gives them, before any cleaning.

    `unanswered` counts rows that had no answer and are not among `pairs`; `revision` is the commit of a Hub set.
    `left_out` are the rows of tables that are no pairs, each with its reason, and `notes` say what was found rather
    than given: separators, encodings, columns. `conversations` counts what reading them found and put right, by rule.
    `folder_of` says what a folder holds that is not MedQuAD's XML.
    """

    pairs: list[QAPair]
    unanswered: int = 0
    revision: str | None = None
    left_out: list[tuple[str, QAPair]] = field(default_factory=list, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    folder_of: str | None = field(default=None, compare=False)
    conversations: dict[str, int] = field(default_factory=dict, compare=False)

    def fingerprint(self) -> str:
        """SHA-256 over every field of every row."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            values = {name: value for name, value in asdict(pair).items() if value or name not in LATER_FIELDS}
            digest.update(json.dumps(values).encode("utf-8"))
        return digest.hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were left out: those without an answer in any case, and others where there are any."""
        reasons = Counter(reason for reason, _ in self.left_out)
        others = {reason: reasons[reason] for reason in LEFT_OUT if reason != "unanswered" and reasons[reason]}
        return {"unanswered": self.unanswered, **others, **self.conversations}


def read_source(
    source: str,
    columns: ColumnsSection,
    revision: str | None = None,
    *,
    table: TableSection = AS_FOUND,
    hub_config: str | None = None,
    hub_split: str | None = None,
) -> SourceRows:
    """Read every row of `source`.

    Raises DataError, in one line, if it is missing, unreadable, empty, or lacks the question or the answer column.
    """
    if source == DEMO_SOURCE:
        demo = files("medtune.data") / "demo" / "rows.jsonl"
        rows = read_lines(source, demo.read_text(encoding="utf-8"))
        return _source_rows(source, {source: ReadTable(rows)}, columns)
    if os.path.isdir(source):  # Path.is_dir would raise for a name that is too long
        return _read_folder(Path(source), columns, table, hub_split)
    if os.path.isfile(source):
        return _source_rows(source, {source: read_table(Path(source), table)}, columns)
    _require_hub_name(source)
    parts, commit = load_hub_dataset(source, revision, hub_config, hub_split)
    return replace(_source_rows(source, {source: ReadTable(_named_parts(parts, columns))}, columns), revision=commit)


def _read_folder(folder: Path, columns: ColumnsSection, table: TableSection, split: str | None) -> SourceRows:
    from medtune.data.medquad_xml import read_medquad_xml

    if is_saved_data_set(folder):
        parts = chosen_splits(read_saved_data_set(folder, MAX_TABLE_BYTES), split, str(folder))
        rows = _source_rows(str(folder), {str(folder): ReadTable(_named_parts(parts, columns))}, columns)
        return replace(rows, folder_of="a saved data set")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(TABLE_SUFFIXES) and path.is_file() and path.name not in _DESCRIPTIONS
    )
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not found:
        pairs, unanswered = read_medquad_xml(folder)
        return SourceRows(pairs, unanswered)
    if any(path.is_file() for path in folder.rglob("*.xml")):
        shown = one_line(found[0].name)
        raise DataError(
            folder, f"holds both MedQuAD XML and tables, such as {shown}", "put them in folders of their own"
        )
    total = sum(path.stat().st_size for path in found)
    if total > MAX_TABLE_BYTES:
        raise DataError(folder, f"its tables are larger than {MAX_TABLE_BYTES:,} bytes", "leave out what is not needed")
    rows = _source_rows(str(folder), {one_line(str(path)): read_table(path, table) for path in found}, columns)
    note = f"{len(found)} files, from {one_line(found[0].name)} on"
    return replace(rows, notes=(note, *rows.notes), folder_of="tables")


def _named_parts(
    parts: Mapping[str, Iterable[Mapping[str, Any]]], columns: ColumnsSection
) -> Iterator[Mapping[str, Any]]:
    """Rows of all parts; where the configuration asks for a column that they lack, it holds their part's name."""
    for name, records in parts.items():
        for record in records:
            lacks = columns.split is not None and name and columns.split not in record
            yield {**record, columns.split: name} if lacks else record  # type: ignore[dict-item]


def _source_rows(origin: str, tables: Mapping[str, ReadTable], columns: ColumnsSection) -> SourceRows:
    """The rows of one or several tables, each with its own columns. Raises DataError if they hold none."""
    ids, several = RowIds(), len(tables) > 1
    pairs: list[QAPair] = []
    left_out: list[tuple[str, QAPair]] = []
    notes: dict[str, None] = {}
    conversations: Counter[str] = Counter()
    for name, table in tables.items():
        made = pairs_of(table.rows, columns, name, narrow=table.narrow, ids=ids)
        pairs += made.pairs
        left_out += made.left_out
        left_out += [
            ("too_many_cells", QAPair(f"line {line}", "", text, "", raw_question=text))
            for line, text in table.wide.items()
        ]
        notes |= dict.fromkeys((*table.notes, *_ragged(table), *made.notes))
        conversations.update(made.conversations)
        if several and not made.pairs:
            notes[f"{name} has no rows with an answer"] = None
    unanswered = sum(reason == "unanswered" for reason, _ in left_out)
    if not pairs:
        without = unanswered + sum(reason in EXAM_LEFT_OUT for reason, _ in left_out)
        raise DataError(origin, f"no rows with an answer ({without} without)", "there is nothing to train on")
    return SourceRows(pairs, unanswered, left_out=left_out, notes=tuple(notes), conversations=dict(conversations))


def _ragged(table: ReadTable) -> Iterator[str]:
    if table.narrow:
        first = min(table.narrow.values())
        yield f"{len(table.narrow):,} rows have fewer cells than the header, such as line {first}"
    if table.wide:
        yield f"{len(table.wide):,} rows have more cells than the header, such as line {min(table.wide)}"


def check_source(
    source: SourceSection | str, columns: ColumnsSection | None = None, table: TableSection = AS_FOUND
) -> None:
    """Raises DataError if `source` clearly cannot be read or, given `columns`, if a table lacks them.

    With `columns`, a Hub data set is downloaded, and the data stage finds it in the cache.
    """
    section = SourceSection(source=source) if isinstance(source, str) else source
    source = section.source
    path = Path(source)
    if source == DEMO_SOURCE or os.path.isdir(source):
        return
    if os.path.isfile(source):
        if not path.name.lower().endswith(TABLE_SUFFIXES):
            raise unknown_kind(path)
        if columns:
            require_columns(read_table(path, table).rows, columns, source)
        return
    _require_hub_name(source)
    if not columns:
        dataset_revision(source, section.revision)
        return
    parts, _ = load_hub_dataset(source, section.revision, section.hub_config, section.hub_split)
    require_columns(_named_parts(parts, columns), columns, source)


def _require_hub_name(source: str) -> None:
    if source.endswith(TABLE_SUFFIXES) or source.startswith((".", "/", "~")):
        raise DataError(source, "no such file or folder", "give data.source an existing path or a Hub data set's id")
