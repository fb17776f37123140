"""A large source from its files to dealt rows: read in pieces, joined, grouped and split, with all arrays on disk."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from medtune.config.schema import Config
from medtune.data import cleaning
from medtune.data.columns import find_columns
from medtune.data.large import arrays
from medtune.data.large.dealing import MOST_ROWS, Dealt, deal
from medtune.data.large.gathering import Gathered, drop_repeats, gather, number_ids
from medtune.data.large.grouping import Groups, group_rows
from medtune.data.large.reading import Done, Job
from medtune.data.large.source_files import SourceFile, SourcePiece, is_parquet, open_file, pieces_of
from medtune.data.large.workers import read_all, worker_count
from medtune.data.left_out import reading_line, reading_warning, require_long_answers
from medtune.data.row_markup import markup_lines
from medtune.data.splits import PARTS
from medtune.errors import DataError, Option
from medtune.runtime.progress import Advance, progress_bar, say
from medtune.runtime.terminal import one_line
from medtune.storage.disk_errors import writing
from medtune.storage.row_tables import parquet_size
from medtune.storage.writing import require_room

# The name of the folder of arrays; a run deletes what a killed one left of it.
WORK_NAME = "streamed"
# Bytes on disk for each byte of JSONL, and for each of Parquet once unpacked, with shingles of all answers and without:
# measured by benchmarks/large_data.py.
DISK_FACTORS = {True: 4.0, False: 1.0}


@dataclass(frozen=True, slots=True)
class Streamed:
    """A source that is read, grouped and dealt, its arrays on disk; what was counted, and where the data came from."""

    found: Gathered
    groups: Groups
    dealt: Dealt
    report: dict[str, Any]
    provenance: dict[str, Any]


@contextmanager
def prepare_streamed(
    config: Config, files: Sequence[Path], parent: Path, workers: int | None = None
) -> Iterator[Streamed]:
    """Yields the dealt rows of `files`; their arrays are in a folder in `parent`, which is deleted in the end.

    Raises DataError if rows cannot be read or split, and DiskError if there is no room for them.
    """
    source = config.data.named
    pieces = _pieces(source, files)
    factor = DISK_FACTORS[_are_compared(config, pieces)]
    require_room(parent, int(factor * text_bytes(files)), Option("run_dir"))
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{WORK_NAME}-", dir=parent))
        try:
            yield _prepare(config, pieces, folder, workers)
        finally:
            shutil.rmtree(folder)


def _pieces(source: str, files: Sequence[Path]) -> list[SourcePiece]:
    size = sum(path.stat().st_size for path in files)
    say(
        f"{source}: {size / 1e9:.1f} GB in {_amount(len(files), 'file')}, read as a stream, with few rows in "
        "memory at a time"
    )
    return list(chain.from_iterable(map(pieces_of, files)))


def text_bytes(files: Sequence[Path]) -> int:
    """About how many bytes the rows of these files have once they are unpacked."""
    return sum(parquet_size(path)[1] if is_parquet(path) else path.stat().st_size for path in files)


def _prepare(config: Config, pieces: Sequence[SourcePiece], folder: Path, workers: int | None) -> Streamed:
    data, source = config.data, config.data.named
    rows = sum(piece.rows for piece in pieces)
    found, notes = _read(config, pieces, folder, workers or worker_count(len(pieces)))
    if not found.answered:
        problem = f"no rows with an answer ({found.counts['unanswered']} without)"
        raise DataError(source, problem, "there is nothing to train on")
    with progress_bar("Looking for repeated rows", 2, unit="passes") as advance:
        number_ids(found, source)
        advance(1)
        drop_repeats(found)
        advance(1)
    counts = _counts(found)
    report: dict[str, Any] = {"cleaning_version": cleaning.VERSION, "source": counts}
    notes += markup_lines(found.markup)
    _tell(source, notes, counts, report)
    require_long_answers(source, found.answered, found.counts, data.min_answer_words)
    with progress_bar("Grouping", 5 * found.rows) as advance:
        groups = group_rows(found, data.near_duplicate_limit, advance)
    dealt = deal(found, groups, config)
    trained_on = min(dealt.rows["train"], data.train_limit or dealt.rows["train"])
    report |= {
        "split": dealt.report,
        "rows": {**dealt.rows, "train": trained_on},
        "streamed": _streamed(found, groups, dealt, rows),
    }
    _require_parts(found, groups, dealt)
    for line in _choices(config, groups, dealt):
        say(line)
        report.setdefault("notes", []).append(line)
    fingerprint = {"source": source, "revision": None, "fingerprint": found.fingerprint, "streamed": True}
    return Streamed(found, groups, dealt, report, fingerprint)


def _are_compared(config: Config, pieces: Sequence[SourcePiece]) -> bool:
    # More rows than twice the limit hardly have so few different answers.
    return sum(piece.rows for piece in pieces) <= 2 * config.data.near_duplicate_limit


def _read(config: Config, pieces: Sequence[SourcePiece], folder: Path, workers: int) -> tuple[Gathered, list[str]]:
    data, rows = config.data, sum(piece.rows for piece in pieces)
    opened = {str(path): open_file(path, data) for path in dict.fromkeys(Path(piece.path) for piece in pieces)}
    least = cleaning.MIN_ANSWER_WORDS if data.min_answer_words is None else data.min_answer_words
    shingles = _are_compared(config, pieces)
    jobs = [
        Job(number, piece, str(folder), file.names, file.present, data.markup, data.html, least, shingles)
        for number, piece in enumerate(pieces)
        if (file := opened[piece.path]).names
    ]
    seen: dict[str, dict[str, None]] = {path: dict.fromkeys(file.present) for path, file in opened.items()}

    def check(job: Job, piece: Done) -> None:
        if piece.columns:
            _require_same_columns(config, opened[job.piece.path], seen[job.piece.path], piece.columns)

    with progress_bar(f"Reading rows ({_amount(workers, 'process', 'es')})", rows) as advance:
        found = gather(folder, jobs, read_all(jobs, workers, _with_rate(advance)), check)
    several = len(opened) > 1
    notes = [f"{len(opened)} files, from {one_line(Path(next(iter(opened))).name)} on"] if several else []
    return found, [*notes, *dict.fromkeys(file.note for file in opened.values() if file.note)]


def _with_rate(advance: Advance) -> Callable[[int], None]:
    """Moves a bar, with the rate beside it."""
    began, done = time.monotonic(), 0

    def move(rows: int) -> None:
        nonlocal done
        done += rows
        advance(rows, f"{done / max(1e-3, time.monotonic() - began):,.0f} rows/s")

    return move


def _require_same_columns(config: Config, file: SourceFile, seen: dict[str, None], new: Sequence[str]) -> None:
    """Raises DataError if columns that only later rows have would have been chosen."""
    seen.update(dict.fromkeys(new))
    names = find_columns(list(seen), config.data.columns, str(file.path)).names
    for field, name in names.items():
        if name is not None and name != file.names[field]:
            problem = f"column {name!r}, for the {field}, is in later rows and not in the first"
            fix = ("put a row that has it first, or leave it out with ", Option("set", f"data.columns.{field}=null"))
            raise DataError(file.path, problem, fix)


def _counts(found: Gathered) -> dict[str, Any]:
    unanswered = {"unanswered": found.counts["unanswered"]}
    names = ("rows_read", *cleaning.CHANGES, *cleaning.DROPS, "rows_kept")
    cleaned = {name: found.counts[name] for name in names}
    some = arrays.distinct_count(found.file("focus_read"))
    focus = "given" if found.has_focus else "read from the questions" if some else "absent"
    return {**unanswered, **dict(sorted(found.markup.items())), **cleaned, "focus": focus}


def _tell(source: str, notes: Sequence[str], counts: dict[str, Any], report: dict[str, Any]) -> None:
    lines = [f"{source}: {note}" for note in notes]
    for line in (*lines, reading_line(source, counts)):
        say(line)
    if lines:
        report["notes"] = lines
    if warning := reading_warning(source, counts):
        report["warnings"] = [warning]


def _streamed(found: Gathered, groups: Groups, dealt: Dealt, rows: int) -> dict[str, Any]:
    searched = groups.searched
    return {
        "rows": rows,
        "near_duplicates_among": searched.answers,
        "near_duplicates_not_searched": searched.not_searched,
        "near_duplicates_not_compared_with_all": searched.not_compared,
        "pairs_compared": searched.pairs,
        "rows_whose_groups_were_dealt": dealt.pool,
    }


def _choices(config: Config, groups: Groups, dealt: Dealt) -> Iterator[str]:
    """What was chosen for the size, a line each."""
    settings, searched = config.data.split, groups.searched
    shares = max(settings.validation, settings.test)
    if settings.most_rows is None and any(len(rows) >= 0.9 * MOST_ROWS for rows in (dealt.validation, dealt.test)):
        yield (
            f"validation and test have about {MOST_ROWS:,} rows and not {shares:.0%}: streamed data; "
            f"{Option('set', 'data.split.most_rows=N')} sets another number"
        )
    if searched.not_searched:
        yield (
            f"near-duplicates are not looked for among {searched.not_searched:,} different answers; equal ones alone "
            f"join; {Option('set', f'data.near_duplicate_limit={searched.not_searched}')} looks for them"
        )
    if searched.not_compared:
        yield (
            f"{searched.not_compared:,} of {searched.answers:,} answers have a phrase in common with very many others "
            "and were not compared with all of these"
        )


def _require_parts(found: Gathered, groups: Groups, dealt: Dealt) -> None:
    for part in PARTS:
        if dealt.rows[part]:
            continue
        sizes = groups.groups.sizes(found.file("group_sizes"))
        largest = max(int(sizes[start : start + arrays.BLOCK].max()) for start in range(0, found.rows, arrays.BLOCK))
        held = f": one group holds {largest:,} of them" if 2 * largest > found.rows else ""
        raise DataError(
            "data.split",
            f"the {part} split is empty ({found.rows:,} rows in all){held}",
            "give more rows or other shares",
        )


def _amount(count: int, noun: str, ending: str = "s") -> str:
    return f"{count:,} {noun}{'' if count == 1 else ending}"
