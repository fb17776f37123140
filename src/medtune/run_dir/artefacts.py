"""Reading and writing the files of a run: whole or not at all, and checked on the way in."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from medtune.errors import Option, RunDirError
from medtune.records import LATER_FIELDS, Prediction, QAPair, Score, Split, SystemName
from medtune.run_dir.layout import SPLITS, RunFiles
from medtune.storage.disk_errors import writing
from medtune.storage.reading import DamagedError, check_type, parse_json, read_parquet, read_text
from medtune.storage.row_tables import parquet_size, row_schema
from medtune.storage.writing import replacing_file

# A run's own text files: predictions of a whole data set take tens of megabytes.
MAX_ARTEFACT_BYTES = 1 << 31
# Rows of a split that are read into memory, and bytes of their text.
MOST_READ_ROWS, MOST_ROW_BYTES = 10_000_000, MAX_ARTEFACT_BYTES
_T = TypeVar("_T")
_Step = dict[str, int | float | None]


def fewer_rows(rows: int, size: int) -> int | None:
    """How many of these rows, which take `size` bytes, are safely held in memory; None if all of them are."""
    if rows <= MOST_READ_ROWS and size <= MOST_ROW_BYTES:
        return None
    return min(MOST_READ_ROWS, rows * MOST_ROW_BYTES // max(1, size)) // 2


def dropped_row(rule: str, pair: QAPair) -> dict[str, Any]:
    """A row that was left out, as a line of `dropped.jsonl` has it."""
    row = {"id": pair.id, "rule": rule, "raw_question": pair.raw_question, "raw_answer": pair.raw_answer}
    return row | ({"turns": [asdict(turn) for turn in pair.turns]} if pair.turns else {})


@dataclass(frozen=True)
class DataReport:
    """What people should know of how the rows were read: `notes` on what was found, and `warnings` of what is lost."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunArtefacts(RunFiles):
    """The files of a run, each written under a temporary name and renamed into place.

    What writes raises DiskError if the disk is full, read-only or broken. What reads raises RunDirError, naming the
    file, if it is missing, damaged or from another version.
    """

    def write_split(self, split: Split) -> None:
        """Write the three splits as Parquet, with those columns that came later where any row needs them."""
        self.write_parts(train=split.train, validation=split.validation, test=split.test)

    def write_parts(self, **parts: Sequence[QAPair]) -> None:
        """Write some of the splits, by name."""
        for name in SPLITS:
            if (pairs := parts.get(name)) is None:
                continue
            needed = {field for field in LATER_FIELDS if any(getattr(pair, field) for pair in pairs)}
            table = pa.Table.from_pylist([asdict(pair) for pair in pairs], schema=row_schema(needed))
            self.write_table(self.split_file(name), table)

    def write_dropped(self, dropped: Iterable[tuple[str, QAPair]]) -> None:
        """Write one JSON line for each row that cleaning dropped."""
        self._write_lines(self.dropped_file, (dropped_row(rule, pair) for rule, pair in dropped))

    def read_data_report(self) -> DataReport:
        """What the data stage says of the rows; nothing where an older version or another tool left none."""
        return self.read_as(DataReport, self.data_report_file) if self.data_report_file.is_file() else DataReport()

    def write_predictions(self, system: SystemName, predictions: Iterable[Prediction]) -> None:
        """Write one JSON line a row; `references` where a row has several."""
        rows = (
            {name: value for name, value in asdict(row).items() if name != "references" or value} for row in predictions
        )
        self._write_lines(self.predictions_file(system), rows)

    def read_predictions(self, system: SystemName) -> list[Prediction]:
        """Rows of `predictions.jsonl`. The error names the line too."""
        # Split on "\n" alone: str.splitlines would also break at U+2028, which JSON leaves as it is inside a string.
        path = self.predictions_file(system)
        lines = self._read_text(path).split("\n")
        return [self._record(Prediction, line, path, number) for number, line in enumerate(lines, start=1) if line]

    def write_scores(self, system: SystemName, scores: Mapping[str, Score]) -> None:
        """Write metric → value, interval, n, groups, signature."""
        self.write_json(self.scores_file(system), {name: asdict(score) for name, score in scores.items()})

    def append_history(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the training history."""
        with writing(self.history_file):
            self.history_file.parent.mkdir(parents=True, exist_ok=True)
            with self.history_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def read_history(self) -> list[dict[str, Any]]:
        """The training history so far."""
        if not self.history_file.is_file():
            return []
        # A last line without its end was being written when the process was killed.
        lines = enumerate(self._read_text(self.history_file).split("\n")[:-1], start=1)
        return [self._record(_Step, line, self.history_file, number) for number, line in lines if line]

    def truncate_history(self, last_step: int, *, validated: bool = True) -> None:
        """Drop what a resumed training will log again: every line after `last_step`.

        Unless that step is `validated`, its validation will be logged again too.
        """
        kept = [entry for entry in self.read_history() if self._step(entry) <= last_step]
        if not validated:
            kept = [entry for entry in kept if entry["step"] < last_step or "validation_loss" not in entry]
        self._write_lines(self.history_file, kept)

    def _step(self, entry: Mapping[str, Any]) -> int:
        with self._checking(self.history_file, "step and tokens: "):
            check_type(int, entry.get("tokens", 0))
            return check_type(int, entry.get("step"))

    def write_json(self, path: Path, value: Any) -> None:
        """Write JSON, indented."""
        self.write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, path: Path) -> Any:
        """Read JSON."""
        with self._checking(path):
            return parse_json(self._read_text(path))

    def read_as(self, kind: type[_T], path: Path) -> _T:
        """Read JSON that holds a `kind`, such as `dict[str, Score]`. The error names what does not fit."""
        with self._checking(path):
            return check_type(kind, self.read_json(path))

    def write_table(self, path: Path, table: pa.Table) -> None:
        """Write Parquet."""
        with replacing_file(path) as temporary:
            pq.write_table(table, temporary)

    def require_readable(self, path: Path) -> None:
        """Raises RunDirError if a split has more rows than are held in memory; a damaged one is found in reading."""
        try:
            rows, size = parquet_size(path)
        except (pa.ArrowException, OSError, ValueError):
            return
        if (fewer := fewer_rows(rows, size)) is not None:
            problem = f"{rows:,} rows ({size / 1e9:.1f} GB) are more than are held in memory"
            few = Option("set", f"data.train_limit={fewer}")
            raise RunDirError(path, problem, ("take a sample with ", few, " in another ", Option("run_dir")))

    def read_rows(self, kind: type[_T], path: Path) -> list[_T]:
        """Read Parquet whose rows are each a `kind`."""
        with self._checking(path):
            return check_type(list[kind], read_parquet(path, MOST_READ_ROWS, MOST_ROW_BYTES))  # type: ignore[valid-type]

    def write_text(self, path: Path, text: str) -> None:
        """Write UTF-8 text with "\\n" line ends."""
        with replacing_file(path) as temporary:
            temporary.write_bytes(text.encode("utf-8"))

    def _write_lines(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        self.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def _read_text(self, path: Path) -> str:
        try:
            with self._checking(path):
                return read_text(path, MAX_ARTEFACT_BYTES)
        except FileNotFoundError:
            fix = ("repeat the stage that makes it, or start another ", Option("run_dir"))
            raise RunDirError(path, "missing", fix) from None

    def _record(self, kind: type[_T], line: str, path: Path, number: int) -> _T:
        with self._checking(path, end=f" in line {number}"):
            return check_type(kind, parse_json(line))

    @contextmanager
    def _checking(self, path: Path, start: str = "", end: str = "") -> Iterator[None]:
        """DamagedError in this block becomes a RunDirError about `path`; its text comes between `start` and `end`."""
        try:
            yield
        except DamagedError as error:
            raise self.damaged_file(path, f"{start}{error}{end}") from None

    def damaged_file(self, path: Path, reason: str) -> RunDirError:
        """The error that says that `path` cannot be used, and why."""
        return RunDirError(path, f"damaged, {reason}", ("restore it, or start another ", Option("run_dir")))
