"""The loss of each answer token from the head, without logits of the whole pack."""

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medtune.model.kernels import kernels_for
from medtune.model.packing import balanced_slices, filled_up
from medtune.model.shared_head import LEAST_BYTES, SharedHead, SharedHeadLoss, gradient_of_hidden

# Bytes of whole-vocabulary logits that exist at once: 512 tokens of LLaMA-3's 128,256 in 16 bit.
LOGIT_BYTES = 128 * 2**20


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
    if isinstance(head, SharedHead):
        shared: Tensor = SharedHeadLoss.apply(hidden, positions, labels, head)  # type: ignore[no-untyped-call]
        return shared
    if change is None and is_frozen_weight(head):
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


def is_frozen_weight(head: Any) -> bool:
    """Whether the head is nothing but a weight that is not trained: no bias, and no adapter of its own."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import TrainableTokensWrapper

    adapted = isinstance(head, BaseTunerLayer | TrainableTokensWrapper)
    return not adapted and head.bias is None and not head.weight.requires_grad


def logit_change(config: Any) -> Callable[[Tensor], Tensor] | None:
    """What a model does to its logits: Cohere and Granite scale them, Gemma 2 squashes them; None for nothing."""
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is None:
        return None if scale == 1 else lambda logits: logits * scale
    return lambda logits: torch.tanh(logits * scale / cap) * cap


def can_share_head(model: Any) -> bool:
    """Whether the head of `model`, which need not have weights, is worth sharing out, and one that can be."""
    head, text = model.get_output_embeddings(), model.config.get_text_config()
    if type(head) is not nn.Linear or head.bias is not None or text.tie_word_embeddings:
        return False
    return head.weight.numel() * head.weight.element_size() >= LEAST_BYTES and logit_change(text) is None


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
        return gradient_of_hidden(by_hidden, positions, gradients[0], ctx.shape, by_hidden.dtype), None, None, None
