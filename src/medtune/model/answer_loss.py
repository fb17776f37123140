"""Negative log-likelihood of reference answers: the one measure behind validation loss and perplexity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from medtune.hardware import input_device
from medtune.records import IGNORED, AnswerLoss, EncodedRow


def add_answer_loss(model: Any) -> None:
    """Let `model(…, labels=…, fused_lm_head=True)` return per-token log-probabilities without whole-vocabulary logits.

    TRL's public hook, on this instance alone; a plain call stays what it was.
    """
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model)


def fill_micro_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Share out rows over as few passes of at most `token_budget` tokens as first-fit decreasing finds.

    Returns indices into `lengths`. A row longer than the budget gets a pass of its own. The result depends on the
    lengths alone.
    """
    passes: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((p for p, left in enumerate(room) if lengths[index] <= left), None)
        if place is None:
            passes.append([])
            room.append(token_budget)
            place = len(passes) - 1
        passes[place].append(index)
        room[place] -= lengths[index]
    return [sorted(indices) for indices in passes]


@torch.no_grad()
def answer_losses(
    model: Any,
    rows: Sequence[EncodedRow],
    *,
    pad_token_id: int,
    tokens_per_batch: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[AnswerLoss]:
    """Summed loss of each row's labelled tokens, in the order of `rows`.

    `model` must have been through `add_answer_loss`. Rows share padding-free passes of at most `tokens_per_batch`
    tokens; `on_rows` is told how many rows each pass finished.
    """
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling(pad_token_id=pad_token_id, padding_free=True)
    losses: list[AnswerLoss | None] = [None] * len(rows)
    device = input_device(model)
    for indices in fill_micro_batches([len(row.input_ids) for row in rows], tokens_per_batch):
        batch = collate([{"input_ids": rows[i].input_ids, "labels": rows[i].labels} for i in indices])
        batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
        output = model(**batch, fused_lm_head=True)
        # Position t scores the token at t + 1, so a loss belongs to the row of the token that it scores.
        owner = batch["seq_idx"][0, 1:].long().to(output.log_probs.device)
        sums = torch.zeros(len(indices), dtype=torch.float64, device=owner.device)
        sums.index_add_(0, owner, -output.log_probs[0].double())
        for index, nll in zip(indices, sums.tolist(), strict=True):
            tokens = sum(label != IGNORED for label in rows[index].labels)
            losses[index] = AnswerLoss(nll, tokens)
        on_rows(len(indices))
    return [loss for loss in losses if loss is not None]
