"""A run directory: made, opened and locked; its configuration, its provenance and which of its stages are complete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from medtune.config.changes import changed_keys, continued
from medtune.config.recipes import read_config
from medtune.config.recipes.yaml_text import dump_config
from medtune.config.schema import Config
from medtune.errors import Command, Option, Problem, RunDirError, Text
from medtune.records import QAPair, Score, SplitName, SystemName
from medtune.run_dir.artefacts import RunArtefacts
from medtune.run_dir.completing import how_to_complete
from medtune.run_dir.layout import WRITTEN_NAMES, StageName, stage_named, stage_of
from medtune.run_dir.lock import LOCK_NAME, lock_folder, require_unlocked
from medtune.run_dir.provenance import Decisive, add_record, changed_texts, check_records, find_damage, is_cut_off
from medtune.runtime.progress import say
from medtune.storage.reading import check_type, describe_file
from medtune.storage.writing import clear_leftovers, is_leftover

_T = TypeVar("_T")
_ANOTHER = ("choose another ", Option("run_dir"))


@dataclass(frozen=True)
class RunDir(RunArtefacts):
    """One run. Its configuration and provenance are read and checked once, and written through."""

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
            raise RunDirError(path, f"cannot be made ({error.strerror})", _ANOTHER) from None
        run.lock()
        # Again: another process may have made it in between.
        run.check(config, resume=resume)
        if unused := run._is_unused():
            run.provenance_file.unlink(missing_ok=True)
        else:
            config = run._continued(config)
        if unused or run.config != config:  # in what may change
            run._write_config(config)
        return run

    def _continued(self, config: Config) -> Config:
        kept = continued(self.config, config)
        if kept != config:
            controls = ", ".join(kept.evaluation.controls)
            say(f"{self.path}: goes on with the controls that it was made with ({controls}); the default has more now")
        return kept

    def check(self, config: Config, *, resume: bool) -> None:
        """Raises what `create` would, and makes nothing."""
        path = self.path
        if os.path.exists(path) and not path.is_dir():
            raise RunDirError(path, "is a file, not a directory", _ANOTHER)
        require_unlocked(path)
        if self._is_unused():
            return
        if not resume:
            raise RunDirError(path, "not empty", ("add ", Option("resume"), " to continue that run, or ", *_ANOTHER))
        if not self.config_file.is_file():
            raise RunDirError(path, "not empty and not a medtune run (no config.yaml)", _ANOTHER)
        if changes := changed_keys(self.config, config):
            raise RunDirError.together(Problem(path, f"made with another {change}", _ANOTHER) for change in changes)

    def _is_unused(self) -> bool:
        """Whether there is nothing here, or only what a run wrote that failed before its first artefact."""
        files = list(self.path.iterdir()) if os.path.isdir(self.path) else []
        names = {file.name for file in files if not is_leftover(file, WRITTEN_NAMES)}
        names -= {LOCK_NAME, self.launch_file.name}
        # The provenance tells a failed run's config.yaml from a user's own file of that name.
        return not names or (names == {"config.yaml", "provenance.json"} and not self.provenance.get("stages"))

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run. Raises RunDirError if `path` holds none."""
        run = cls(path)
        if not os.path.isfile(run.config_file):
            raise RunDirError(path, "not a medtune run (no config.yaml)", ("make one with ", Command("run", "RECIPE")))
        return run

    def lock(self) -> None:
        """Keep other processes from working here for this process's life. Raises RunDirError if one does.

        Temporary files that a killed process left are deleted.
        """
        if not lock_folder(self.path):
            return
        for folder in self.written_folders():
            clear_leftovers(folder, WRITTEN_NAMES)
        # Another process may have written since they were read.
        self.read_again()

    def read_again(self) -> None:
        """Forget what is known of configuration and provenance: another process has written."""
        self._forget("config", "provenance")

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)

    # What the run knows of itself ---------------------------------------------------------------------------------

    @cached_property
    def config(self) -> Config:
        """The configuration that the run was made with. Raises RunDirError if its file was cut off."""
        if is_cut_off(self.config_file, self.provenance.get("config")):
            raise self.damaged_file(self.config_file, "cut off")
        return read_config(self.config_file)

    @property
    def pinned_config(self) -> Config:
        """`config` with what later stages must not find otherwise: the base model's commit, and the prompts' date."""
        known = self.provenance.get("model", {}).get("revision")
        model = self.config.model.model_copy(update={"revision": known or self.config.model.revision})
        data = self.config.data.model_copy(update={"prompt_date": self._prompt_date})
        return self.config.model_copy(update={"model": model, "data": data})

    @property
    def _prompt_date(self) -> date | None:
        """The configuration's, else that of the run's start; older versions recorded none."""
        recorded = self.provenance.get("prompt_date")
        if self.config.data.prompt_date is not None or recorded is None:
            return self.config.data.prompt_date
        with self._checking(self.provenance_file, "prompt_date: "):
            return check_type(date, recorded)

    def _write_config(self, config: Config) -> None:
        self.write_text(self.config_file, dump_config(config))
        self._forget("config", "provenance")

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """What is recorded so far: versions, hardware, data, model, and the stages that have ended."""
        if not self.provenance_file.is_file():
            return {}
        values = self.read_as(dict[str, Any], self.provenance_file)
        # What decides which stages run again, and on which model, is checked; the rest is for people.
        with self._checking(self.provenance_file):
            check_type(Decisive, values)
            check_records(values.get("stages", {}))
        return values

    def update_provenance(self, **values: Any) -> None:
        """Set top-level entries of `provenance.json`."""
        # Read again: a run opened twice in one process must not undo what the other wrote.
        self._forget("provenance")
        self._write_provenance(values)

    def _write_provenance(self, values: Mapping[str, Any]) -> None:
        self.write_json(self.provenance_file, {**self.provenance, **values})
        self._forget("provenance")

    def record_start(self, **values: Any) -> None:
        """Set entries of `provenance.json`, and what tells a whole `config.yaml` from one that was cut off.

        The date in prompts is set once: that of later days would make other prompts.
        """
        self._forget("provenance")  # as in `update_provenance`
        today = self.provenance.get("prompt_date") or date.today().isoformat()
        self._write_provenance({"config": describe_file(self.config_file), "prompt_date": today, **values})

    def require_same_base(self, identity: str) -> None:
        """Raises RunDirError if a stage used another base model than the one that `identity` tells.

        A folder can hold another model than before under its name. Stages of older versions recorded nothing.
        """
        for name, record in self.stage_records.items():
            if record.get("base_identity") not in (None, identity):
                fix = ("put the model that was there back, or start a new run in another ", Option("run_dir"))
                raise RunDirError(self.path, f"{self.config.model.base} has changed since the {name} stage", fix)

    # Its stages ---------------------------------------------------------------------------------------------------

    @property
    def stage_records(self) -> Mapping[str, Mapping[str, Any]]:
        """What each stage that has ended recorded."""
        records: Mapping[str, Mapping[str, Any]] = self.provenance.get("stages", {})
        return records

    def recorded(self, stage: StageName, name: str, kind: type[_T]) -> _T:
        """What a complete stage recorded under `name`. Raises RunDirError if that is no `kind`."""
        with self._checking(self.provenance_file, f"stages.{stage}.{name}: "):
            return check_type(kind, self.stage_records[stage].get(name))

    def complete(self, stage: StageName, cost: Mapping[str, Any], *, outdates: bool = True) -> None:
        """Record that `stage` is complete, what it cost, and sizes and checksums of its artefacts.

        Comes last: the record is the proof that the stage ended. Stages that were made from an earlier version of its
        artefacts are complete no longer, unless nothing that they read `outdates` them.
        """
        files = stage_named(stage).artefacts(self, self.config.evaluation.controls)
        self._forget("provenance")  # as in `update_provenance`
        records = add_record(self.stage_records, stage, cost, self.path, files, outdates=outdates)
        self._write_provenance({"stages": records})

    def is_complete(self, stage: StageName) -> bool:
        """Whether `stage` has ended and its artefacts are still as it wrote them."""
        return stage in self.stage_records and self.damage(stage) is None

    def damage(self, stage: StageName) -> str | None:
        """Which artefact of a stage that has ended is missing, torn or edited, and how; None if none is."""
        record = self.stage_records.get(stage)
        if record is None:
            return None
        return find_damage(record, self.path, stage_named(stage).files(self, self.config.evaluation.controls))

    def edited_texts(self, stage: StageName) -> list[str]:
        """Texts for people, of a stage that has ended, that someone has edited."""
        return changed_texts(self.stage_records.get(stage, {}), self.path)

    def require(self, stage: StageName, command: Text = None) -> None:
        """Raises RunDirError, naming what to run, unless `stage` is complete."""
        if not self.is_complete(stage):
            fix = how_to_complete(self, stage, command)
            raise RunDirError(self.path, f"the {stage} stage is not complete", fix)

    def require_needs(self, stage: StageName) -> None:
        """Raises RunDirError unless every stage that `stage` is made from is complete."""
        for name in stage_named(stage).needs:
            # An optional stage that has ended is not one to do without once its artefacts are damaged.
            if self.damage(name) or not stage_named(name).is_optional(self.config):
                self.require(name)

    def read_split(self, name: SplitName) -> list[QAPair]:
        """Rows of one split. Raises RunDirError if the data stage has not run, or the file is damaged."""
        self.require("data")
        self.require_readable(self.split_file(name))
        return self.read_rows(QAPair, self.split_file(name))

    def read_scores(self, system: SystemName) -> dict[str, Score]:
        """Scores of one model or control. Raises RunDirError if it has not been evaluated."""
        self.require(stage_of(system))
        return self.read_as(dict[str, Score], self.scores_file(system))
