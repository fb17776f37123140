"""The table of a run's stages, and what follows from it: order, artefacts, dependents, commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from medtune.config.schema import Config
from medtune.errors import Command, Option
from medtune.records import ControlName, SystemName
from medtune.run_dir.layout import SPLITS, RunFiles

StageName = Literal["data", "baseline", "controls", "train", "tuned", "compare", "report"]


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    It is made from the artefacts of the stages that it `needs`. `command` runs it alone, and with resume continues it
    if it `resumes`. `files` are the artefacts of a run with these controls that every version of medtune writes; `also`
    are those that only later versions write; a folder means all files in it. `partial` are files that keep its results
    until it is complete. Later stages do without one that `is_optional` in a configuration.
    """

    name: StageName
    needs: tuple[StageName, ...]
    command: Command
    files: Callable[[RunFiles, Sequence[ControlName]], list[Path]]
    also: Callable[[RunFiles], list[Path]] = lambda run: []
    partial: Callable[[RunFiles], list[Path]] = lambda run: []
    resumes: bool = False
    is_optional: Callable[[Config], bool] = lambda config: False

    def artefacts(self, run: RunFiles, controls: Sequence[ControlName]) -> list[Path]:
        """Everything that it writes into `run`, except logs."""
        paths = [*self.files(run, controls), *self.also(run)]
        found = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        # PEFT's texts for people are not medtune's.
        return [file for file in dict.fromkeys(found) if file.parent != run.adapter_dir or file.suffix != ".md"]

    def command_for(self, run: Path) -> Command:
        """The command that runs it in the run at `run`; the first one, which makes a run, takes a recipe."""
        return replace(self.command, target=run) if self.needs else self.command


def _of_systems(run: RunFiles, systems: Sequence[SystemName]) -> list[Path]:
    kinds = (run.predictions_file, run.scores_file, run.row_statistics_file)
    return [file(system) for system in systems for file in kinds]


STAGES: tuple[Stage, ...] = (
    Stage(
        "data",
        needs=(),
        command=Command("data prepare"),
        files=lambda run, controls: [run.split_file(name) for name in SPLITS],
        also=lambda run: [run.data_report_file, run.audit_file, run.dropped_file],
        resumes=True,
    ),
    Stage(
        "baseline",
        needs=("data",),
        command=Command("evaluate", options=(Option("model", "baseline"),)),
        files=lambda run, controls: _of_systems(run, ["baseline"]),
        partial=lambda run: [run.partial_file("baseline")],
    ),
    Stage(
        "controls",
        # Controls are compared with models, whose precision their signatures share.
        needs=("data", "baseline"),
        command=Command("evaluate", options=(Option("model", "controls"),)),
        files=_of_systems,
        partial=lambda run: [run.partial_file("few_shot")],
        is_optional=lambda config: not config.evaluation.controls,
    ),
    Stage(
        "train",
        needs=("data",),
        command=Command("train"),
        files=lambda run, controls: [run.adapter_weights_file, run.adapter_config_file],
        also=lambda run: [run.adapter_dir],
        resumes=True,
        is_optional=lambda config: config.model.adapter is not None,
    ),
    Stage(
        "tuned",
        needs=("data", "train"),
        command=Command("evaluate", options=(Option("model", "tuned"),)),
        files=lambda run, controls: _of_systems(run, ["tuned"]),
        partial=lambda run: [run.partial_file("tuned")],
    ),
    Stage(
        "compare",
        needs=("baseline", "tuned", "controls"),
        command=Command("compare"),
        files=lambda run, controls: [
            run.comparison_file,
            run.comparison_text_file,
            run.controls_file,
            run.strata_file,
            run.lengths_file,
        ],
    ),
    Stage(
        "report",
        needs=("compare",),
        command=Command("report"),
        files=lambda run, controls: [run.report_file, run.card_file],
    ),
)
STAGE_NAMES: tuple[StageName, ...] = tuple(stage.name for stage in STAGES)
_ANY = RunFiles(Path())
# What is written here under a temporary name first.
WRITTEN_NAMES = frozenset(
    {file.name for stage in STAGES for file in [*stage.files(_ANY, get_args(ControlName)), *stage.also(_ANY)]}
    | {_ANY.config_file.name, _ANY.provenance_file.name, _ANY.history_file.name, _ANY.trouble_file.name}
    | {"plan.json", "sealed.json", _ANY.partial_file("tuned").name, _ANY.merge_file.name}
)


def stage_named(name: StageName) -> Stage:
    """The stage of that name."""
    return STAGES[STAGE_NAMES.index(name)]


def stage_of(system: SystemName) -> StageName:
    """The stage that answers as `system`."""
    return "baseline" if system == "baseline" else "tuned" if system == "tuned" else "controls"


def made_from(name: StageName) -> frozenset[StageName]:
    """The stages that were made from the artefacts of the stage `name`, directly or through others."""
    direct = {stage.name for stage in STAGES if name in stage.needs}
    return frozenset(direct).union(*(made_from(other) for other in direct))


def continuing_command(arguments: Sequence[str]) -> str | None:
    """The command that continues the one with `arguments`, or None where there is nothing to continue."""
    resumes: dict[tuple[str, ...], bool] = {("run",): True, ("merge",): False, ("publish",): False}
    resumes |= {tuple(stage.command.name.split()): stage.resumes for stage in STAGES}
    option = str(Option("resume"))
    for words, resume in resumes.items():
        if tuple(arguments[: len(words)]) == words:
            return shlex.join(["medtune", *arguments, *([option] if resume and option not in arguments else [])])
    return None
