"""The names of a run's files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from medtune.records import ModelName, SplitName, SystemName

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class RunFiles:
    """Where the files of the run in `path` are, or will be."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def provenance_file(self) -> Path:
        """Versions, hardware, fingerprints and what each stage cost."""
        return self.path / "provenance.json"

    @property
    def history_file(self) -> Path:
        """One JSON line for every logged training step."""
        return self.path / "training" / "history.jsonl"

    @property
    def trouble_file(self) -> Path:
        """What stopped a training that went wrong: the step, its loss and gradient, its rows."""
        return self.path / "training" / "trouble.json"

    @property
    def tracker_dir(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "training" / "tensorboard"

    @property
    def checkpoints_dir(self) -> Path:
        """The trainer's step checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter_dir(self) -> Path:
        """The trained adapter in PEFT's format, with tokenizer and chat template."""
        return self.path / "adapter"

    @property
    def adapter_weights_file(self) -> Path:
        """The adapter's weights."""
        return self.adapter_dir / "adapter_model.safetensors"

    @property
    def adapter_config_file(self) -> Path:
        """The adapter's configuration, PEFT's."""
        return self.adapter_dir / "adapter_config.json"

    @property
    def comparison_file(self) -> Path:
        """The comparison as a list of rows, one a metric."""
        return self.path / "comparison.json"

    @property
    def comparison_text_file(self) -> Path:
        """The comparison as Markdown."""
        return self.path / "comparison.md"

    @property
    def report_file(self) -> Path:
        """The report for people, one self-contained page."""
        return self.path / "report.html"

    @property
    def card_file(self) -> Path:
        """The model card, as the Hub shows it."""
        return self.path / "README.md"

    @property
    def merge_file(self) -> Path:
        """What merging the adapter into its base changed."""
        return self.path / "merge.json"

    @property
    def human_dir(self) -> Path:
        """The blinded sheet for people to rate, its key and the scores of their ratings."""
        return self.path / "human"

    def split_file(self, split: SplitName) -> Path:
        """Rows of one split."""
        return self.path / "data" / f"{split}.parquet"

    @property
    def data_report_file(self) -> Path:
        """Counts of the data stage: rows read, cleaned away, split."""
        return self.path / "data" / "report.json"

    @property
    def controls_file(self) -> Path:
        """The controls, answers without tuning: their scores, and the tuned model against them."""
        return self.path / "controls.json"

    @property
    def strata_file(self) -> Path:
        """Both models on parts of the test rows."""
        return self.path / "strata.json"

    @property
    def lengths_file(self) -> Path:
        """How long answers and references are, and what the cap cuts."""
        return self.path / "lengths.json"

    @property
    def audit_file(self) -> Path:
        """What the rows and their split are like: lengths, duplicates, conflicts, leakage."""
        return self.path / "data" / "audit.json"

    @property
    def dropped_file(self) -> Path:
        """Rows that cleaning dropped, with the rule and the raw text."""
        return self.path / "data" / "dropped.jsonl"

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
