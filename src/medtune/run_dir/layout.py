"""The names of a run's files, and the table of the stages that write them: order, artefacts, dependents, commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from medtune.config.schema import Config
from medtune.errors import Command, Option
from medtune.records import ControlName, ModelName, SplitName, SystemName

StageName = Literal["data", "baseline", "controls", "train", "tuned", "compare", "report"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class _File:
    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def __get__(self, run: RunFiles, kind: type[RunFiles]) -> Path:
        return run.path.joinpath(*self.parts)


@dataclass(frozen=True)
class RunFiles:
    """Where the files of the run in `path` are, or will be."""

    path: Path

    config_file = _File("config.yaml")
    """The resolved configuration."""
    provenance_file = _File("provenance.json")
    """Versions, hardware, fingerprints and what each stage cost."""
    history_file = _File("training", "history.jsonl")
    """One JSON line for every logged training step."""
    trouble_file = _File("training", "trouble.json")
    """What stopped a training that went wrong: the step, its loss and gradient, its rows."""
    tracker_dir = _File("training", "tensorboard")
    """TensorBoard's event files."""
    trackers_file = _File("training", "trackers.json")
    """The run's id in each tracker, so that it continues there."""
    checkpoints_dir = _File("checkpoints")
    """The trainer's step checkpoints."""
    adapter_dir = _File("adapter")
    """The trained adapter in PEFT's format, with tokenizer and chat template."""
    adapter_weights_file = _File("adapter", "adapter_model.safetensors")
    adapter_config_file = _File("adapter", "adapter_config.json")
    """The adapter's configuration, PEFT's."""
    launch_file = _File("launch.json")
    """The exit status of the last launch of several processes, for a job script that has only the launcher's."""
    comparison_file = _File("comparison.json")
    """The comparison as a list of rows, one a metric."""
    comparison_text_file = _File("comparison.md")
    report_file = _File("report.html")
    """The report for people, one self-contained page."""
    card_file = _File("README.md")
    """The model card, as the Hub shows it."""
    merge_file = _File("merge.json")
    """What merging the adapter into its base changed."""
    human_dir = _File("human")
    """The blinded sheet for people to rate, its key and the scores of their ratings."""
    data_report_file = _File("data", "report.json")
    """Counts of the data stage: rows read, cleaned away, split."""
    controls_file = _File("controls.json")
    """The controls: their scores, and the tuned model against them."""
    strata_file = _File("strata.json")
    """Both models on parts of the test rows."""
    lengths_file = _File("lengths.json")
    """How long answers and references are, and what the cap cuts."""
    audit_file = _File("data", "audit.json")
    """What the rows and their split are like: lengths, duplicates, conflicts, leakage."""
    dropped_file = _File("data", "dropped.jsonl")
    """Rows that cleaning dropped, with the rule and the raw text."""

    def split_file(self, split: SplitName) -> Path:
        """Rows of one split."""
        return self.path / "data" / f"{split}.parquet"

    def predictions_file(self, system: SystemName) -> Path:
        """Answers of one model or control, with reference losses where it has them."""
        return self._system_dir(system) / "predictions.jsonl"

    def scores_file(self, system: SystemName) -> Path:
        """Metrics of one model or control."""
        return self._system_dir(system) / "scores.json"

    def row_statistics_file(self, system: SystemName) -> Path:
        """What the metrics of one model or control are summed from, a row a prediction."""
        return self._system_dir(system) / "row_statistics.parquet"

    def partial_file(self, system: SystemName) -> Path:
        """Answers and losses so far of a model or control whose stage is not complete."""
        return self._system_dir(system) / "partial.jsonl"

    def _system_dir(self, system: SystemName) -> Path:
        return self.path / system if system in get_args(ModelName) else self.path / "controls" / system

    def written_folders(self) -> Iterator[Path]:
        """Folders where artefacts are written; those of people and of trackers are not among them."""
        yield self.path
        models: tuple[str, ...] = get_args(ModelName)
        for pattern in ("data", "training", *models, "controls/*", "checkpoints", "checkpoints/checkpoint-*"):
            yield from self.path.glob(pattern)


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    It is made from the artefacts of the stages that it `needs`. `command` runs it alone, and with resume continues it
    if it `resumes`. `files` are its artefacts in a run with these controls that every version of medtune writes; `also`
    are those that only later versions write; a folder means all files in it. `partial` are files that keep its results
    until it is complete. A launch's processes divide one that is `shared`; the first does the others. Later stages do
    without one that `is_optional` in a configuration.
    """

    name: StageName
    needs: tuple[StageName, ...]
    command: Command
    files: Callable[[RunFiles, Sequence[ControlName]], list[Path]]
    also: Callable[[RunFiles], list[Path]] = lambda run: []
    partial: Callable[[RunFiles], list[Path]] = lambda run: []
    shared: bool = False
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


def stage_of(system: SystemName) -> StageName:
    """The stage that answers as `system`."""
    if system == "baseline":
        return "baseline"
    # The tuned model answers in one stage, for which it is loaded once.
    return "tuned" if system in ("tuned", "tuned_retrieval") else "controls"


def controls_of(stage: StageName, controls: Sequence[ControlName]) -> list[ControlName]:
    """Those of `controls` that `stage` answers as, in their order."""
    return [name for name in controls if stage_of(name) == stage]


def _of_systems(run: RunFiles, systems: Sequence[SystemName]) -> list[Path]:
    return [file(name) for name in systems for file in (run.predictions_file, run.scores_file, run.row_statistics_file)]


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
        shared=True,
        needs=("data",),
        command=Command("evaluate", options=(Option("model", "baseline"),)),
        files=lambda run, controls: _of_systems(run, ["baseline"]),
        partial=lambda run: [run.partial_file("baseline")],
    ),
    Stage(
        "controls",
        shared=True,
        # Controls are compared with models, whose precision their signatures share.
        needs=("data", "baseline"),
        command=Command("evaluate", options=(Option("model", "controls"),)),
        files=lambda run, controls: _of_systems(run, controls_of("controls", controls)),
        partial=lambda run: [run.partial_file("few_shot"), run.partial_file("retrieval")],
        is_optional=lambda config: not controls_of("controls", config.evaluation.controls),
    ),
    Stage(
        "train",
        shared=True,
        needs=("data",),
        command=Command("train"),
        files=lambda run, controls: [run.adapter_weights_file, run.adapter_config_file],
        also=lambda run: [run.adapter_dir],
        resumes=True,
        is_optional=lambda config: config.model.adapter is not None,
    ),
    Stage(
        "tuned",
        shared=True,
        needs=("data", "train"),
        command=Command("evaluate", options=(Option("model", "tuned"),)),
        files=lambda run, controls: _of_systems(run, ["tuned", *controls_of("tuned", controls)]),
        partial=lambda run: [run.partial_file("tuned"), run.partial_file("tuned_retrieval")],
    ),
    Stage(
        "compare",
        needs=("baseline", "tuned", "controls"),
        command=Command("compare"),
        files=lambda run, controls: [
            *(run.comparison_file, run.comparison_text_file, run.controls_file, run.strata_file, run.lengths_file)
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
    | {_ANY.config_file.name, _ANY.provenance_file.name, _ANY.launch_file.name, _ANY.merge_file.name, "streamed"}
    | {_ANY.history_file.name, _ANY.trouble_file.name, _ANY.partial_file("tuned").name, "plan.json", "sealed.json"}
    | {_ANY.trackers_file.name}
)


def stage_named(name: StageName) -> Stage:
    """The stage of that name."""
    return STAGES[STAGE_NAMES.index(name)]


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
