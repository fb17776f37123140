"""All pieces as one: arrays of every row that cleaning kept, without rows that repeat an earlier one."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from medtune.data.large import arrays
from medtune.data.large.hashes import KINDS, id_text
from medtune.data.large.reading import FOCUS_READ, Done, Job
from medtune.errors import DataError, show_value

# The arrays that have an entry for each kept row.
_ROW_ARRAYS = {
    **dict.fromkeys((*KINDS, FOCUS_READ, "place"), np.uint64),
    "part": np.uint8,
    "type": np.int32,
    "source": np.int32,
}
# Rows whose shingles are held at once: some hundred each.
SHINGLED_ROWS = 1 << 14
_OTHERS = ("ids", "given", "shingles", "shingle_counts", "dropped")


@dataclass(slots=True)
class Gathered:
    """What all pieces hold together, and where: `folder` has the arrays, `tables` the rows of each piece.

    `rows` counts those that are kept. `ends` is behind the last row of each table, among all rows of the tables, and
    `table_rows` says which of these are kept.
    """

    folder: Path
    rows: int = 0
    answered: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    markup: Counter[str] = field(default_factory=Counter)
    types: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    other_parts: Counter[str] = field(default_factory=Counter)
    has_focus: bool = False
    has_references: bool = False
    id_bytes: int = 1
    text_bytes: int = 0
    tables: list[Path] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    fingerprint: str = ""

    def file(self, kind: str) -> Path:
        """Where the array of this kind is."""
        return self.folder / f"all.{kind}"

    @property
    def table_rows(self) -> Path:
        """The rows of the tables that are kept, by their place among all, in order."""
        return self.file("table_rows")


def gather(folder: Path, jobs: Iterable[Job], done: Iterable[Done], check: Callable[[Job, Done], None]) -> Gathered:
    """Join the arrays of the pieces as they come, in their order. `check` may refuse a piece."""
    found, digest = Gathered(folder), sha256()
    types: dict[str, int] = {}
    sources: dict[str, int] = {}
    for job, piece in zip(jobs, done, strict=True):
        check(job, piece)
        codes = {
            kind: np.array([*(known.setdefault(name, len(known)) for name in names), 0], np.int32)
            for kind, known, names in (("type", types, piece.types), ("source", sources, piece.sources))
        }
        _join_arrays(found, job, piece, codes)
        digest.update(piece.digest.encode())
        found.answered += piece.answered
        found.rows += piece.kept
        for name in ("counts", "markup", "other_parts"):
            getattr(found, name).update(getattr(piece, name))
        found.has_focus |= piece.has_focus
        found.has_references |= piece.has_references
        found.id_bytes = max(found.id_bytes, piece.id_bytes)
        found.text_bytes += piece.text_bytes
        found.tables.append(job.file("rows"))
        found.ends.append(found.rows)
    found.types, found.sources, found.fingerprint = list(types), list(sources), digest.hexdigest()
    for kind in (*_ROW_ARRAYS, *_OTHERS, "names"):
        found.file(kind).touch()
    return found


def _join_arrays(found: Gathered, job: Job, piece: Done, codes: Mapping[str, Any]) -> None:
    for kind in (*_ROW_ARRAYS, *_OTHERS, "names"):
        source = job.file(kind)
        if not source.exists():
            continue
        if kind == "place":
            arrays.append(found.file(kind), np.fromfile(source, np.uint64) + np.uint64(found.answered))
        elif kind in codes:
            arrays.append(found.file(kind), codes[kind][np.fromfile(source, np.int32)])
        elif kind == "dropped":
            _join_dropped(found, source)
        else:
            with source.open("rb") as piece_file, found.file(kind).open("ab") as whole:
                shutil.copyfileobj(piece_file, whole, 1 << 20)
        source.unlink()


def _join_dropped(found: Gathered, source: Path) -> None:
    with source.open(encoding="utf-8") as lines, found.file("dropped").open("a", encoding="utf-8") as whole:
        for line in lines:
            row = json.loads(line)
            if "place" in row:
                row["place"] += found.answered
            whole.write(json.dumps(row, ensure_ascii=False) + "\n")


def number_ids(found: Gathered, origin: str) -> None:
    """Number the rows of one id: every row's text id becomes its own, in an array of texts of equal length.

    Raises DataError for an id that the source gives to two rows.
    """
    given = arrays.mapped(found.file("given"), np.uint8, found.answered)
    copies = arrays.mapped(found.file("copies"), np.int32, found.answered, fill=1)
    for rows, first in arrays.equal_runs(found.file("ids"), skip_zero=False):
        if (named := rows[given[rows].astype(bool)]).size and len(twice := _twice(named, rows, first)):
            raise DataError(origin, f"id {_id_of(found, int(twice[0]))} is in two rows", _UNIQUE)
        begins = arrays.run_begins(first)
        place = np.arange(len(rows)) - np.repeat(begins, np.diff(np.append(begins, len(rows))))
        copies[rows] = place + 1
    _write_names(found, copies)


_UNIQUE = "ids must be unique, or leave data.columns.id out"


def _twice(named: Any, rows: Any, first: Any) -> Any:
    """Rows whose given id another row has too, which in a run of equal ones is every given one but a first."""
    return named[~np.isin(named, first)] if len(named) else named


def _id_of(found: Gathered, place: int) -> str:
    """The id of a row by its place, as an error shows it; a row that cleaning dropped keeps only a hash."""
    for start, places in arrays.blocks(found.file("place"), np.uint64):
        if len(at := np.flatnonzero(places == place)):
            return show_value(next(_texts(found.file("names"), start + int(at[0]))))
    return "of a row that cleaning drops"


def _texts(path: Path, start: int = 0) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number >= start:
                yield id_text(line[:-1])


def _write_names(found: Gathered, copies: Any) -> None:
    width = found.id_bytes + len("-") + len(str(int(copies.max(initial=1))))
    width += -width % 8
    found.id_bytes = width
    with found.file("names").open("rb") as texts, found.file("id").open("wb") as file:
        for _, places in arrays.blocks(found.file("place"), np.uint64):
            own = copies[places.astype(np.int64)]
            names = np.array([texts.readline()[:-1] for _ in range(len(places))], dtype=f"S{width}")
            for at in np.flatnonzero(own > 1):
                names[at] = b"%s-%d" % (names[at], own[at])
            names.tofile(file)


def drop_repeats(found: Gathered) -> None:
    """Leave out each row that repeats an earlier one, in all arrays; its text goes to the dropped rows."""
    alive = arrays.mapped(found.file("alive"), np.uint8, found.rows, fill=1)
    for rows, first in arrays.equal_runs(found.file("repeat")):
        alive[rows[rows != first]] = 0
    repeats = found.rows - int(np.count_nonzero(alive))
    with found.table_rows.open("wb") as file:
        for start in range(0, found.rows, arrays.BLOCK):
            (np.flatnonzero(alive[start : start + arrays.BLOCK]) + start).astype(np.int64).tofile(file)
    if not repeats:
        return
    found.counts["dropped_duplicate"] += repeats
    found.counts["rows_kept"] -= repeats
    for kind, dtype in {**_ROW_ARRAYS, "id": f"S{found.id_bytes}"}.items():
        if kind != "id":
            arrays.keep_only(found.file(kind), dtype, alive)
    _drop_texts(found, alive)
    arrays.keep_only(found.file("id"), f"S{found.id_bytes}", alive)
    if arrays.length(found.file("shingle_counts"), np.int32):
        _drop_shingles(found, alive)
    found.rows -= repeats


def _drop_texts(found: Gathered, alive: Any) -> None:
    import pyarrow.parquet as pq

    names, start = f"S{found.id_bytes}", 0
    with found.file("dropped").open("a", encoding="utf-8") as file:
        for table, end in zip(found.tables, found.ends, strict=True):
            gone = np.flatnonzero(alive[start:end] == 0)
            if len(gone):
                texts = pq.read_table(table, columns=["raw_question", "raw_answer"]).take(gone).to_pylist()
                ids = arrays.part(found.file("id"), names, start, end)[gone]
                for text, id in zip(texts, ids, strict=True):
                    row = {"id": id_text(id), "rule": "dropped_duplicate", **text}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
            start = end


def _drop_shingles(found: Gathered, alive: Any) -> None:
    shorter, at = found.file("shingles").with_suffix(".shorter"), 0
    with shorter.open("wb") as file:
        for start, counts in arrays.blocks(found.file("shingle_counts"), np.int32, SHINGLED_ROWS):
            ends = np.cumsum(counts)
            held = arrays.part(found.file("shingles"), np.int64, at, at + int(ends[-1]))
            held[np.repeat(alive[start : start + len(counts)].astype(bool), counts)].tofile(file)
            at += int(ends[-1])
    shorter.replace(found.file("shingles"))
    arrays.keep_only(found.file("shingle_counts"), np.int32, alive)


def write_dropped(found: Gathered, path: Path) -> None:
    """Write the rows that were left out, each with its rule and the number that its id got."""
    copies = arrays.mapped(found.file("copies"), np.int32, found.answered)
    with found.file("dropped").open(encoding="utf-8") as lines, path.open("w", encoding="utf-8") as file:
        for line in lines:
            row = json.loads(line)
            if (place := row.pop("place", None)) is not None and copies[place] > 1:
                row["id"] = f"{row['id']}-{copies[place]}"
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
