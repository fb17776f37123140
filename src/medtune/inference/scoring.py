"""Negative log-likelihood of reference answers: the measure used for training, validation loss and perplexity."""

import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from medtune.errors import ModelError
from medtune.model.packing import fill_micro_batches, pack_rows
from medtune.records import IGNORED, AnswerLoss, EncodedRow
from medtune.run_dir.partial_results import BatchWork
from medtune.runtime.hardware import free_bytes, input_device, release_memory
from medtune.runtime.progress import say

# How often at most the host waits for the losses of the passes that are under way.
SECONDS_PER_LOOK = 1.0
# Tokens of one scoring pass where memory allows; more are no faster.
SCORING_TOKENS = {"cpu": 2048, "cuda": 16384}


def answer_losses(
    model: Any, rows: Sequence[EncodedRow], *, tokens_per_batch: int, on_rows: Callable[[int], None] = lambda rows: None
) -> list[AnswerLoss]:
    """Summed loss of each row's labelled tokens, in the order of `rows`.

    `model` must have been through `add_answer_loss`. Rows share padding-free passes of at most `tokens_per_batch`
    tokens, fewer once memory runs out; `on_rows` is told how many rows each pass finished. Raises ModelError if memory
    does not suffice for a row by itself.
    """
    work = BatchWork(plan_passes(rows, tokens_per_batch), AnswerLoss)
    score_passes(model, rows, work, on_rows)
    return work.in_order()


def scoring_tokens(model: Any, wanted: int | str) -> int:
    """Token budget of a scoring pass: `wanted`, or for `auto` as many as fit and pay."""
    if not isinstance(wanted, str):
        return wanted
    device = input_device(model)
    text = model.config.get_text_config()
    width = model.get_input_embeddings().weight.element_size()
    # Residual stream and its copies, and the feed-forward part; unfused layers hold some of it in float32.
    a_token = width * (24 * text.hidden_size + 6 * getattr(text, "intermediate_size", 4 * text.hidden_size))
    return int(max(512, min(SCORING_TOKENS[device.type], free_bytes(str(device)) // 2 // a_token)))


def plan_passes(rows: Sequence[EncodedRow], tokens_per_batch: int) -> list[list[int]]:
    """Which of `rows` share a pass."""
    return fill_micro_batches([len(row.input_ids) for row in rows], tokens_per_batch)


@torch.no_grad()
def score_passes(
    model: Any, rows: Sequence[EncodedRow], work: BatchWork[AnswerLoss], on_rows: Callable[[int], None]
) -> None:
    """As `answer_losses`, for the passes over `rows` that `work` has to do."""
    ahead: list[tuple[list[int], Tensor]] = []
    next_look = time.monotonic()
    while work.to_do:
        indices = work.to_do.popleft()
        sums = sums_if_they_fit(model, [rows[i] for i in indices])
        if sums is None:
            _finish_passes(work, rows, ahead)
            _halve_passes(work, rows, indices)
            continue
        ahead.append((indices, sums))
        on_rows(len(indices))
        # A GPU need not wait for the host after each pass, but what it has not been asked for can be lost.
        if (now := time.monotonic()) >= next_look:
            _finish_passes(work, rows, ahead)
            next_look = now + SECONDS_PER_LOOK
    _finish_passes(work, rows, ahead)


def sums_if_they_fit(model: Any, rows: Sequence[EncodedRow]) -> Tensor | None:
    """Each row's loss, (rows,) float64 on the model's device, or None if memory does not suffice."""
    batch = pack_rows(rows)
    # Position t scores the token at t + 1, so a loss belongs to the row of the token that it scores.
    owner = batch["seq_idx"][0, 1:].long()[batch["answer_positions"]]
    device = input_device(model)
    # The caller frees memory once this has returned: until then the exception holds on to every tensor of the attempt.
    try:
        batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
        losses = model(**batch).double()
        sums = torch.zeros(len(rows), dtype=torch.float64, device=losses.device)
        return sums.index_add_(0, owner.to(losses.device), losses)
    except torch.OutOfMemoryError:
        return None


def _finish_passes(
    work: BatchWork[AnswerLoss], rows: Sequence[EncodedRow], ahead: list[tuple[list[int], Tensor]]
) -> None:
    for indices, sums in ahead:
        tokens = [sum(label != IGNORED for label in rows[i].labels) for i in indices]
        work.finish(indices, [AnswerLoss(*row) for row in zip(sums.tolist(), tokens, strict=True)])
    ahead.clear()


def _halve_passes(work: BatchWork[AnswerLoss], rows: Sequence[EncodedRow], failed: list[int]) -> None:
    """Share out the rows of a pass that did not fit, and all after it, over passes of half as many tokens."""
    tokens = sum(len(rows[i].input_ids) for i in failed)
    if len(failed) == 1:
        raise ModelError(
            f"out of memory with one row of {tokens} tokens at a time, whatever training.tokens_per_micro_batch is",
            fix="free memory on the device, or leave such long rows out of the data",
        )
    release_memory()
    less = tokens // 2
    say(f"out of memory with {len(failed)} rows of {tokens} tokens at once; continuing with {less} tokens at most")
    left = sorted([*failed, *chain.from_iterable(work.to_do)])
    passes = plan_passes([rows[i] for i in left], less)
    work.replan([[left[place] for place in places] for places in passes])
