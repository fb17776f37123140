"""A run directory: the only owner of its files, of atomic writes and of provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from medtune.config.recipes import changed_keys, dump_config, read_config
from medtune.config.schema import Config
from medtune.errors import Option, Problem, RunDirError
from medtune.records import FileRecord, Prediction, QAPair, Score, Split, SplitName, SystemName
from medtune.run_dir import stage_records
from medtune.run_dir.layout import SPLITS as SPLITS
from medtune.run_dir.layout import WRITTEN_NAMES, RunFiles
from medtune.run_dir.lock import LOCK_NAME, lock_folder
from medtune.run_dir.provenance import config_record, is_cut_off, is_start_of
from medtune.run_dir.stage_records import STAGES as STAGES
from medtune.run_dir.stage_records import StageName as StageName
from medtune.storage import leftovers
from medtune.storage.disk_errors import writing
from medtune.storage.reading import DamagedError, check_type, describe_file, parse_json, read_parquet, read_text
from medtune.storage.writing import replacing_file, replacing_folder, unfinished_copy

# A run's own text files: predictions of a whole data set take tens of megabytes.
MAX_ARTEFACT_BYTES = 1 << 31
_MAX_ROWS = 10_000_000
_T = TypeVar("_T")
_Step = dict[str, int | float | None]


@dataclass(frozen=True)
class _Decisive:
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: dict[str, str | None] = field(default_factory=dict)
    config: FileRecord | None = None


def pin_revision(run: RunDir, config: Config) -> Config:
    """`config` with the base model's commit that the first stage found, wherever the branch has moved since."""
    known = run.provenance().get("model", {}).get("revision")
    model = config.model.model_copy(update={"revision": known or config.model.revision})
    return config.model_copy(update={"model": model})


@dataclass(frozen=True)
class RunDir(RunFiles):
    """One run. Every file is written under a temporary name and renamed into place.

    What writes raises DiskError if the disk is full, read-only or broken.
    """

    @classmethod
    def create(cls, path: Path, config: Config, *, resume: bool) -> RunDir:
        """Make `path` with its `config.yaml`, or with `resume` continue the run that is there.

        Raises RunDirError if the directory is not empty and `resume` is false, if the configuration there differs, or
        if another process works there.
        """
        run = cls(path)
        run.check(config, resume=resume)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirError(f"{path}: cannot be made ({error.strerror}); choose another --run-dir") from None
        run.lock()
        # Again: another process may have made it in between.
        run.check(config, resume=resume)
        if not run._is_unused():
            if run._lost_end_of(config) or run.config() != config:  # in what may change
                run.write_text(run.config_file, dump_config(config))
            return run
        run.provenance_file.unlink(missing_ok=True)
        run.write_text(run.config_file, dump_config(config))
        return run

    def check(self, config: Config, *, resume: bool) -> None:
        """Raises what `create` would, and makes nothing."""
        path = self.path
        if os.path.exists(path) and not path.is_dir():
            raise RunDirError(f"{path}: is a file, not a directory; choose another --run-dir")
        if self._is_unused():
            return
        if not resume:
            raise RunDirError(
                path,
                "not empty",
                ("add ", Option("resume"), " to continue that run, or choose another ", Option("run_dir")),
            )
        if not self.config_file.is_file():
            raise RunDirError(f"{path}: not empty and not a medtune run (no config.yaml); choose another --run-dir")
        if self._lost_end_of(config):
            return  # `create` writes it again
        changes = changed_keys(read_config(unfinished_copy(self.config_file) or self.config_file), config)
        if changes:
            fix = ("choose another ", Option("run_dir"))
            raise RunDirError.together(Problem(path, f"made with another {change}", fix) for change in changes)

    def _is_unused(self) -> bool:
        """Whether nothing stands here, or only what a run wrote that failed before its first artefact."""
        files = list(self.path.iterdir()) if os.path.isdir(self.path) else []
        names = {file.name for file in files if not leftovers.is_leftover(file, WRITTEN_NAMES)} - {LOCK_NAME}
        if not names:
            return True
        # The provenance tells a failed run's config.yaml from a user's own file of that name.
        return names == {"config.yaml", "provenance.json"} and not self.provenance().get("stages")

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run. Raises RunDirError if `path` holds none."""
        run = cls(path)
        if not os.path.isfile(run.config_file):
            raise RunDirError(f"{path}: not a medtune run (no config.yaml); make one with `medtune run RECIPE`")
        return run

    def lock(self) -> None:
        """Keep other processes from working here for this process's life. Raises RunDirError if one does.

        What a killed process left is put in order: files cut off as they were written in place, temporary names.
        """
        if not lock_folder(self.path):
            return
        for file in (self.provenance_file, self.config_file):
            leftovers.finish_writing(file)
        for folder in self.written_folders():
            leftovers.clear_leftovers(folder, WRITTEN_NAMES)

    # Reading and writing ------------------------------------------------------------------------------------------

    def config(self) -> Config:
        """The configuration that the run was made with. Raises RunDirError if its file was cut off."""
        file = unfinished_copy(self.config_file) or self.config_file
        if is_cut_off(file, self.provenance().get("config")):
            raise RunDirError(
                f"{self.config_file}: cut off; `medtune run RECIPE --run-dir {self.path} --resume` with the recipe it "
                "was made from writes it again"
            )
        return read_config(file)

    def _lost_end_of(self, config: Config) -> bool:
        file = self.config_file
        if unfinished_copy(file) or not is_start_of(file, config):
            return False
        return bool(self.provenance().get("config") == config_record(config))

    def write_split(self, split: Split) -> None:
        """Write the three splits as Parquet."""
        types = get_type_hints(QAPair)
        schema = pa.schema([(f.name, pa.bool_() if types[f.name] is bool else pa.string()) for f in fields(QAPair)])
        for name in SPLITS:
            table = pa.Table.from_pylist([asdict(pair) for pair in getattr(split, name)], schema=schema)
            self.write_table(self.split_file(name), table)

    def write_dropped(self, dropped: Iterable[tuple[str, QAPair]]) -> None:
        """Write one JSON line for each row that cleaning dropped."""
        rows = (
            {"id": pair.id, "rule": rule, "raw_question": pair.raw_question, "raw_answer": pair.raw_answer}
            for rule, pair in dropped
        )
        self.write_text(self.dropped_file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def read_split(self, name: SplitName) -> list[QAPair]:
        """Rows of one split. Raises RunDirError if the data stage has not run, or the file is damaged."""
        self.require("data", "medtune data prepare")
        path = self.split_file(name)
        try:
            return check_type(list[QAPair], read_parquet(path, _MAX_ROWS, MAX_ARTEFACT_BYTES))
        except DamagedError as error:
            raise _damaged(path, str(error)) from None

    def write_predictions(self, system: SystemName, predictions: Iterable[Prediction]) -> None:
        """Write one JSON line a row."""
        lines = [json.dumps(asdict(prediction), ensure_ascii=False) for prediction in predictions]
        self.write_text(self.predictions_file(system), "".join(f"{line}\n" for line in lines))

    def read_predictions(self, system: SystemName) -> list[Prediction]:
        """Rows of `predictions.jsonl`. Raises RunDirError, naming file and line, if it is damaged."""
        # Split on "\n" alone: str.splitlines would also break at U+2028, which JSON leaves as it is inside a string.
        path = self.predictions_file(system)
        lines = self._read_text(path).split("\n")
        return [_record(Prediction, line, path, number) for number, line in enumerate(lines, start=1) if line]

    def write_scores(self, system: SystemName, scores: Mapping[str, Score]) -> None:
        """Write metric → value, interval, n, groups, signature."""
        self.write_json(self.scores_file(system), {name: asdict(score) for name, score in scores.items()})

    def read_scores(self, system: SystemName) -> dict[str, Score]:
        """Scores of one model or control. Raises RunDirError if it has not been evaluated."""
        stage: StageName = "baseline" if system == "baseline" else "tuned" if system == "tuned" else "controls"
        self.require(stage, f"medtune evaluate {self.path} --model {stage}")
        return self.read_as(dict[str, Score], self.scores_file(system))

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
        return [_record(_Step, line, self.history_file, number) for number, line in lines if line]

    def truncate_history(self, last_step: int, *, validated: bool = True) -> None:
        """Drop what a resumed training will log again: every line after `last_step`.

        Unless that step is `validated`, its validation will be logged again too.
        """
        kept = [entry for entry in self.read_history() if self._step(entry) <= last_step]
        if not validated:
            kept = [entry for entry in kept if entry["step"] < last_step or "validation_loss" not in entry]
        self.write_text(self.history_file, "".join(json.dumps(entry) + "\n" for entry in kept))

    def _step(self, entry: Mapping[str, Any]) -> int:
        try:
            check_type(int, entry.get("tokens", 0))
            return check_type(int, entry.get("step"))
        except DamagedError as error:
            raise _damaged(self.history_file, f"step and tokens: {error}") from None

    def replacing_adapter(self) -> AbstractContextManager[Path]:
        """Yields an empty folder that takes the adapter's place once the block has ended without an error."""
        return replacing_folder(self.adapter_dir)

    def write_json(self, path: Path, value: Any) -> None:
        """Write JSON, indented."""
        self.write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, path: Path) -> Any:
        """Read JSON. Raises RunDirError, naming the file, if it is damaged or from another version."""
        try:
            return parse_json(self._read_text(path))
        except DamagedError as error:
            raise _damaged(path, str(error)) from None

    def read_as(self, kind: type[_T], path: Path) -> _T:
        """Read JSON that holds a `kind`, such as `dict[str, Score]`. Raises RunDirError, naming what does not fit."""
        try:
            return check_type(kind, self.read_json(path))
        except DamagedError as error:
            raise _damaged(path, str(error)) from None

    def _read_text(self, path: Path) -> str:
        try:
            return read_text(path, MAX_ARTEFACT_BYTES)
        except FileNotFoundError:
            raise RunDirError(f"{path}: missing; repeat the stage that makes it, or start another --run-dir") from None
        except DamagedError as error:
            raise _damaged(path, str(error)) from None

    def write_table(self, path: Path, table: pa.Table) -> None:
        """Write Parquet."""
        with replacing_file(path) as temporary:
            pq.write_table(table, temporary)

    def write_text(self, path: Path, text: str) -> None:
        """Write UTF-8 text with "\\n" line ends."""
        with replacing_file(path) as temporary:
            temporary.write_bytes(text.encode("utf-8"))

    # Provenance ---------------------------------------------------------------------------------------------------

    def provenance(self) -> dict[str, Any]:
        """What is recorded so far."""
        if not self.provenance_file.is_file():
            return {}
        values = self.read_as(dict[str, Any], unfinished_copy(self.provenance_file) or self.provenance_file)
        # What decides which stages run again, and on which model, is checked; the rest is for people.
        try:
            check_type(_Decisive, values)
            stage_records.check_records(values.get("stages", {}))
        except DamagedError as error:
            raise _damaged(self.provenance_file, str(error)) from None
        return values

    def recorded(self, stage: StageName, name: str, kind: type[_T]) -> _T:
        """What a complete stage recorded under `name`. Raises RunDirError if that is no `kind`."""
        try:
            return check_type(kind, self.provenance()["stages"][stage].get(name))
        except DamagedError as error:
            raise _damaged(self.provenance_file, f"stages.{stage}.{name}: {error}") from None

    def update_provenance(self, **values: Any) -> None:
        """Set top-level entries of `provenance.json`."""
        self.write_json(self.provenance_file, {**self.provenance(), **values})

    def record_config(self) -> None:
        """Keep in the provenance what tells a whole `config.yaml` from one that was cut off."""
        self.update_provenance(config=describe_file(self.config_file))

    def complete(self, stage: StageName, cost: Mapping[str, Any]) -> None:
        """Record that `stage` is complete, what it cost, and sizes and checksums of its artefacts.

        Comes last: the record is the proof that the stage ended. Stages that were made from an earlier version of its
        artefacts are complete no longer.
        """
        records, files = self.provenance().get("stages", {}), self._artefacts(stage)
        self.update_provenance(stages=stage_records.add_record(records, stage, cost, self.path, files))

    def is_complete(self, stage: StageName) -> bool:
        """Whether `stage` has ended and its artefacts still stand as it wrote them."""
        return stage in self.provenance().get("stages", {}) and self.damage(stage) is None

    def damage(self, stage: StageName) -> str | None:
        """Which artefact of a stage that has ended is missing, torn or edited, and how; None if none is."""
        record = self.provenance().get("stages", {}).get(stage)
        return None if record is None else stage_records.damage(record, self.path, self._needed(stage))

    def edited_texts(self, stage: StageName) -> list[str]:
        """Texts for people, of a stage that has ended, that someone has edited."""
        return stage_records.edited_texts(self.provenance().get("stages", {}).get(stage, {}), self.path)

    def _needed(self, stage: StageName) -> list[Path]:
        """The artefacts that every version writes."""
        if stage == "data":
            return [self.split_file(name) for name in SPLITS]
        if stage == "train":
            return [self.adapter_dir / "adapter_model.safetensors", self.adapter_dir / "adapter_config.json"]
        if stage == "compare":
            texts = [self.comparison_file, self.comparison_text_file]
            return [*texts, self.controls_file, self.strata_file, self.lengths_file]
        if stage == "report":
            return [self.report_file, self.card_file]
        systems = self.config().evaluation.controls if stage == "controls" else [stage]
        return [
            file
            for name in systems
            for file in (self.predictions_file(name), self.scores_file(name), self.row_statistics_file(name))
        ]

    def _artefacts(self, stage: StageName) -> list[Path]:
        """All that it writes, but for logs and what PEFT writes for people."""
        if stage == "data":
            return [*self._needed(stage), self.data_report_file, self.audit_file, self.dropped_file]
        if stage == "train":
            return [file for file in self.adapter_dir.rglob("*") if file.suffix != ".md"]
        return self._needed(stage)

    def require(self, stage: StageName, command: str) -> None:
        """Raises RunDirError, naming the command to run first, unless `stage` is complete."""
        if not self.is_complete(stage):
            damage = self.damage(stage)
            reason = f" ({damage})" if damage else ""
            raise RunDirError(f"{self.path}: the {stage} stage is not complete; run `{command}` first{reason}")


def _record(kind: type[_T], line: str, path: Path, number: int) -> _T:
    try:
        return check_type(kind, parse_json(line))
    except DamagedError as error:
        raise _damaged(path, f"{error} in line {number}") from None


def _damaged(path: Path, reason: str) -> RunDirError:
    return RunDirError(f"{path}: damaged, {reason}; restore it, or start another --run-dir")
