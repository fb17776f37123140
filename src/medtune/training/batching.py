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
from medtune.runtime.launch import balanced_shares, own_share, world_size


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

    It is a function of its arguments: step k holds the same rows however training was interrupted and on however many
    processes it runs, so skipping k steps resumes it.
    """

    def __init__(self, rows: int, rows_per_step: int, steps: int, seed: int):
        self.rows, self.rows_per_step, self.steps, self.seed = rows, rows_per_step, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            yield self.step_rows(step)

    def step_rows(self, step: int) -> list[int]:
        """Rows of optimiser step `step`, counted from 0, of all processes."""
        epoch, place = divmod(step, steps_per_epoch(self.rows, self.rows_per_step))
        order = _epoch_order(self.rows, self.seed, epoch)
        return order[place * self.rows_per_step : (place + 1) * self.rows_per_step]


@lru_cache(maxsize=1)
def _epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(rows, generator=generator).tolist()
    return order


def steps_of(rows: int, training: TrainingSection, seed: int, steps: int | None = None) -> StepSampler:
    """The row indices of every optimiser step of the whole training, or of `steps`."""
    steps = total_steps(training, rows) if steps is None else steps
    return StepSampler(rows, training.effective_batch_rows, steps, seed)


def shares_of_steps(
    lengths: Sequence[int], training: TrainingSection, seed: int, processes: int | None = None
) -> Iterator[list[int]]:
    """The row indices of every optimiser step as each of the processes has them, for rows of these lengths.

    `processes` need not be those of this launch.
    """
    for step in steps_of(len(lengths), training, seed):
        for share in balanced_shares([lengths[i] for i in step], processes or world_size()):
            yield [step[i] for i in share]


def most_passes(lengths: Sequence[int], tokens_per_micro_batch: int) -> int:
    """How many passes the process makes that makes most of them, where all share out rows of these lengths."""
    shares = balanced_shares(lengths, world_size())
    return max(len(fill_micro_batches([lengths[i] for i in share], tokens_per_micro_batch)) for share in shares)


def largest_step(lengths: Sequence[int], training: TrainingSection, seed: int, processes: int | None = None) -> int:
    """The most tokens that one process has of one optimiser step, of rows of these lengths."""
    return max(sum(lengths[i] for i in share) for share in shares_of_steps(lengths, training, seed, processes))


def collate_step(rows: Sequence[EncodedRow], *, tokens_per_micro_batch: int, lockstep: bool = False) -> dict[str, Any]:
    """This process's rows of one optimiser step as padding-free passes, each a pack.

    `answer_tokens` and `tokens` count those of the whole step. In `lockstep` all processes make equally many passes:
    some of one row that counts for nothing.
    """
    lengths = [len(row.input_ids) for row in rows]
    own = own_share(lengths)
    passes = fill_micro_batches([lengths[i] for i in own], tokens_per_micro_batch)
    micro_batches = [pack_rows([rows[own[i]] for i in indices]) for indices in passes]
    if lockstep:
        filler = min(rows, key=lambda row: len(row.input_ids))
        masked = pack_rows([replace(filler, labels=[IGNORED] * len(filler.labels))])
        micro_batches += [masked] * (most_passes(lengths, tokens_per_micro_batch) - len(passes))
    return {
        "micro_batches": micro_batches,
        "tokens_per_micro_batch": tokens_per_micro_batch,
        "answer_tokens": sum(len(row.labels) - row.labels[1:].count(IGNORED) - 1 for row in rows),
        "tokens": sum(lengths),
    }
