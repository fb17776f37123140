"""Which rows make up each optimiser step, and the passes that a step is split into.

A step is a fixed number of rows drawn from a seeded order; how many forward passes it takes depends on the token budget
alone and changes neither its rows nor its gradient.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch.utils.data import Sampler

from medtune.config.training import TrainingSection
from medtune.model.packing import fill_micro_batches, pack_rows
from medtune.records import IGNORED, EncodedRow
from medtune.runtime.distributed import rank, world_size


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """Optimiser steps of one pass over the rows; the last may be smaller."""
    return math.ceil(rows / rows_per_step)


def total_steps(training: TrainingSection, rows: int) -> int:
    """Optimiser steps of the whole training."""
    if training.max_steps is not None:
        return training.max_steps
    return max(1, round(training.epochs * steps_per_epoch(rows, training.effective_batch_rows)))


class StepSampler(Sampler[list[int]]):
    """Yields the row indices of every optimiser step of a whole training, each epoch in a fresh seeded order.

    It is a function of its arguments: step k holds the same rows however training was interrupted, so skipping k
    steps resumes it. With several processes each takes its share of every step's rows.
    """

    def __init__(self, rows: int, rows_per_step: int, steps: int, seed: int, rank: int = 0, world_size: int = 1):
        self.rows, self.rows_per_step, self.steps, self.seed = rows, rows_per_step, steps, seed
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            yield self.step_rows(step)[self.rank :: self.world_size]

    def step_rows(self, step: int) -> list[int]:
        """Rows of optimiser step `step`, counted from 0, over all processes."""
        epoch, place = divmod(step, steps_per_epoch(self.rows, self.rows_per_step))
        order = _epoch_order(self.rows, self.seed, epoch)
        return order[place * self.rows_per_step : (place + 1) * self.rows_per_step]


@lru_cache(maxsize=1)
def _epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(rows, generator=generator).tolist()
    return order


def steps_of(rows: int, training: TrainingSection, seed: int, steps: int | None = None) -> StepSampler:
    """The row indices of every optimiser step of the whole training, or of `steps`, as this process has them."""
    steps = total_steps(training, rows) if steps is None else steps
    return StepSampler(rows, training.effective_batch_rows, steps, seed, rank(), world_size())


def largest_step(lengths: Sequence[int], training: TrainingSection, seed: int) -> int:
    """The most tokens that one optimiser step holds in this process, of rows of these lengths."""
    return max(sum(lengths[i] for i in step) for step in steps_of(len(lengths), training, seed))


def collate_step(rows: Sequence[EncodedRow], *, tokens_per_micro_batch: int, filler: EncodedRow) -> dict[str, Any]:
    """One optimiser step: its padding-free passes, each a pack, and its counts of tokens.

    `filler`, with every label masked, is for a process that has fewer passes than another: all have to take part in
    every exchange between processes, and this one adds nothing to it.
    """
    lengths = [len(row.input_ids) for row in rows]
    passes = fill_micro_batches(lengths, tokens_per_micro_batch)
    micro_batches = [pack_rows([rows[i] for i in indices]) for indices in passes]
    return {
        "filler": pack_rows([replace(filler, labels=[IGNORED] * len(filler.labels))]),
        "micro_batches": micro_batches,
        "tokens_per_micro_batch": tokens_per_micro_batch,
        "answer_tokens": sum(len(batch["answer_labels"]) for batch in micro_batches),
        "tokens": sum(lengths),
    }
