"""What a training is made of, before its first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtune.config.training import TrainingSection
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.training.batching import total_steps
from medtune.training.prepared_step import PreparedStep


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training: its model, made ready as `prepared` says, its rows, and where it writes.

    `dtype` is the one that a step computes in. `origin` tells this training from any other, for the seals of its
    checkpoints; `resume_from` is the checkpoint that it continues.
    """

    prepared: PreparedStep
    tokenizer: Any
    train_rows: Sequence[EncodedRow]
    validation_rows: Sequence[EncodedRow]
    seed: int
    run: RunDir
    dtype: str
    origin: Mapping[str, str] = field(default_factory=dict)
    resume_from: Path | None = None

    @property
    def training(self) -> TrainingSection:
        """The section of the configuration that says how to train."""
        return self.prepared.training

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training, unless early stopping ends it before."""
        return total_steps(self.training, len(self.train_rows))
