"""The longest pass and a validation batch, tried out before training begins: what will not fit fails now.

It leaves nothing behind: no gradient, no changed weight, no random number drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from medtune.model.packing import fill_micro_batches, pack_rows
from medtune.records import EncodedRow
from medtune.runtime.progress import say
from medtune.training.batching import shares_of_steps
from medtune.training.plan.peaks import GIB, optimizer_bytes

if TYPE_CHECKING:
    from medtune.training.answer_trainer import AnswerTrainer


def rehearse(trainer: AnswerTrainer) -> None:
    """Try the longest pass of the whole training and the widest validation batch, with less memory until both fit.

    Raises MedtuneError if no plan takes less.
    """
    device = trainer.args.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer.within_memory(lambda: _try(trainer), where="in the rehearsal", keep_optimizer=False)
    trainer.agree(keep_optimizer=False)
    if device.type == "cuda":
        peak, plan = torch.cuda.max_memory_allocated(device), trainer.prepared.plan
        say(
            f"rehearsal: the longest pass, with optimiser, and a validation batch fit; {peak / GIB:.1f} GiB at their "
            f"peak, {plan.peak_bytes / GIB:.1f} predicted"
        )


def longest_pass(
    rows: Sequence[EncodedRow], steps: Iterable[Sequence[int]], tokens_per_micro_batch: int
) -> list[EncodedRow]:
    """The rows of the pass with the most tokens in all `steps`; among equals, of the one with the longest row."""
    lengths = [len(row.input_ids) for row in rows]
    passes = (
        [step[i] for i in indices]
        for step in steps
        for indices in fill_micro_batches([lengths[i] for i in step], tokens_per_micro_batch)
    )
    longest = max(passes, key=lambda one: (sum(lengths[i] for i in one), max(lengths[i] for i in one)))
    return [rows[i] for i in longest]


def _try(trainer: AnswerTrainer) -> None:
    if trainer.prepared.shards is not None:
        trainer.prepared.shards.promise(True, False)
    if trainer.args.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.args.device)  # those of loading, and of passes that did not fit
    job, prepared, parameters = trainer.job, trainer.prepared, trainer.trained
    train_rows, validation_rows, budget = job.train_rows, job.validation_rows, prepared.plan.tokens_per_micro_batch
    # A step also holds the optimiser's state and the gradients of the passes before.
    size = int(prepared.shape.adapter_parameters * optimizer_bytes(prepared.plan.optimizer))
    state = torch.empty(size, dtype=torch.uint8, device=trainer.args.device)
    if trainer.exchange is not None:
        trainer.exchange.begin()
    elif prepared.largest_step > budget:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
    lengths = [len(row.input_ids) for row in train_rows]
    longest = pack_rows(longest_pass(train_rows, shares_of_steps(lengths, job.training, job.seed), budget))
    with trainer.accelerator.autocast():
        trainer.passes(trainer.model, [longest], len(longest["answer_labels"]))
    for parameter in parameters:
        parameter.grad = None
    widest = longest_pass(validation_rows, [range(len(validation_rows))], budget)
    trainer.try_validation(widest)
    del state
