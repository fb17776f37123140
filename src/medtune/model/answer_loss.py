"""Negative log-likelihood of reference answers: the one measure behind training, validation loss and perplexity."""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from medtune.errors import ModelError
from medtune.hardware import input_device, release_memory
from medtune.model.kernels import kernels_for
from medtune.model.packing import balanced_slices, fill_micro_batches, filled_up, pack_rows
from medtune.partial_results import BatchWork
from medtune.progress import say
from medtune.records import IGNORED, AnswerLoss, EncodedRow

# Bytes of whole-vocabulary logits that exist at once: 512 tokens of LLaMA-3's 128,256 in 16 bit.
LOGIT_BYTES = 128 * 2**20
# How often at most the host waits for the losses of the passes that are under way.
SECONDS_PER_LOOK = 1.0


def add_answer_loss(model: Any) -> None:
    """Let `model(…, answer_positions=…, answer_labels=…)` return the loss of each answer token.

    `answer_positions` index the tokens of a pack, (1, tokens), whose next token is `answer_labels`. What comes back are
    negative log-likelihoods in float32, as many as positions, and differentiable: no logits of the whole pack, nothing
    for masked tokens. A plain call stays what it was. Replaced on this instance alone.
    """
    plain = model.forward

    @functools.wraps(type(model).forward)  # `generate` checks what it passes against the signature
    def forward(self: Any, *args: Any, answer_positions: Any = None, answer_labels: Any = None, **kwargs: Any) -> Any:
        if answer_positions is None:
            return plain(*args, **kwargs)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state.squeeze(0)
        # With a `device_map` the decoder may end on another device than the head.
        head = self.get_output_embeddings()
        hidden, positions, labels = (x.to(head.weight.device) for x in (hidden, answer_positions, answer_labels))
        return _token_losses(hidden, positions, labels, head, logit_change(self.config.get_text_config()))

    model.forward = types.MethodType(forward, model)


def _token_losses(
    hidden: Tensor, positions: Tensor, labels: Tensor, head: Any, change: Callable[[Tensor], Tensor] | None
) -> Tensor:
    if change is None and head.bias is None and not head.weight.requires_grad:
        losses: Tensor = _HeadLoss.apply(hidden, positions, labels, head.weight)  # type: ignore[no-untyped-call]
        return losses
    from torch.utils.checkpoint import checkpoint

    def losses_of(rows: Tensor, targets: Tensor) -> Tensor:
        logits = head(rows)
        logits = logits if change is None else change(logits)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")

    sizes = [piece.stop - piece.start for piece in balanced_slices(len(positions), _rows_at_once(head.weight))]
    # Not slices, each of which would bring a gradient as long as all rows.
    pieces = zip(hidden[positions].split(sizes), labels.split(sizes), strict=True)
    return torch.cat([checkpoint(losses_of, rows, targets, use_reentrant=False) for rows, targets in pieces])


def logit_change(config: Any) -> Callable[[Tensor], Tensor] | None:
    """What a model does to its logits: Cohere and Granite scale them, Gemma 2 squashes them; None for nothing."""
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is None:
        return None if scale == 1 else lambda logits: logits * scale
    return lambda logits: torch.tanh(logits * scale / cap) * cap


def _rows_at_once(weight: Tensor) -> int:
    return max(1, LOGIT_BYTES // (weight.shape[0] * weight.element_size()))


class _HeadLoss(torch.autograd.Function):
    """Losses of the tokens at `positions` of `hidden`, (tokens, width), under a frozen head, (vocabulary, width).

    The gradient by the hidden states is taken along with the losses, while each piece's logits are there.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, positions: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        kernels, wanted = kernels_for(hidden), ctx.needs_input_grad[0]
        # Filled up as packs are, and for the same reason.
        rows = hidden.new_empty((filled_up(len(positions)), hidden.shape[1]))
        rows[len(positions) :].zero_()
        answers = rows[: len(positions)]
        torch.index_select(hidden, 0, positions, out=answers)
        labels = torch.nn.functional.pad(labels, (0, len(rows) - len(positions)))
        losses = []
        with torch.autocast(hidden.device.type, enabled=False):
            weight = weight.to(hidden.dtype)
            for piece in balanced_slices(len(rows), _rows_at_once(weight)):
                logits = rows[piece] @ weight.t()
                losses.append(kernels.cross_entropy(logits, labels[piece], with_gradient=wanted))
                if wanted:
                    torch.mm(logits, weight, out=rows[piece])
                del logits
        ctx.save_for_backward(answers if wanted else None, positions)
        ctx.shape = hidden.shape
        return torch.cat(losses)[: len(positions)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        by_hidden, positions = ctx.saved_tensors
        scaled = (by_hidden * gradients[0].unsqueeze(1)).to(by_hidden.dtype)
        result = scaled.new_zeros(ctx.shape)
        result.index_copy_(0, positions, scaled)
        return result, None, None, None


def answer_losses(
    model: Any,
    rows: Sequence[EncodedRow],
    *,
    tokens_per_batch: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> list[AnswerLoss]:
    """Summed loss of each row's labelled tokens, in the order of `rows`.

    `model` must have been through `add_answer_loss`. Rows share padding-free passes of at most `tokens_per_batch`
    tokens, fewer once memory runs out; `on_rows` is told how many rows each pass finished. Raises ModelError if memory
    does not suffice for a row by itself.
    """
    work = BatchWork(plan_passes(rows, tokens_per_batch), AnswerLoss)
    score_passes(model, rows, work, on_rows)
    return work.in_order()


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
    batch = pack_rows([row.input_ids for row in rows], [row.labels for row in rows])
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
            f"out of memory with one row of {tokens} tokens at a time, whatever training.tokens_per_micro_batch is; "
            "free memory on the device, or leave such long rows out of the data"
        )
    release_memory()
    say(f"out of memory with {len(failed)} rows of {tokens} tokens at once; going on with {tokens // 2} tokens at most")
    left = sorted([*failed, *chain.from_iterable(work.to_do)])
    passes = plan_passes([rows[i] for i in left], tokens // 2)
    work.replan([[left[place] for place in places] for places in passes])
