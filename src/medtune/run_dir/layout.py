"""The names of a run's files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from medtune.records import ModelName, SplitName, SystemName

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
    checkpoints_dir = _File("checkpoints")
    """The trainer's step checkpoints."""
    adapter_dir = _File("adapter")
    """The trained adapter in PEFT's format, with tokenizer and chat template."""
    adapter_weights_file = _File("adapter", "adapter_model.safetensors")
    """The adapter's weights."""
    adapter_config_file = _File("adapter", "adapter_config.json")
    """The adapter's configuration, PEFT's."""
    comparison_file = _File("comparison.json")
    """The comparison as a list of rows, one a metric."""
    comparison_text_file = _File("comparison.md")
    """The comparison as Markdown."""
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
        patterns = ("data", "training", *get_args(ModelName), "controls/*", "checkpoints", "checkpoints/checkpoint-*")
        for pattern in patterns:
            yield from self.path.glob(pattern)
