"""How alike two models are on the same rows: divergence of their next tokens, and how long their answers agree.

The last hidden states of the first model are kept, and its head, which together give all its logits again: 8 kB a token
in place of 250 kB for LLaMA-3-8B. So the two need never be in memory together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import takewhile
from operator import eq
from typing import Any

import torch
from torch import Tensor

from medtune.inference.generation import unwrapped
from medtune.inference.scoring import plan_passes
from medtune.model.answer_loss import logit_change
from medtune.model.merging.record import Divergence
from medtune.model.packing import pack_rows
from medtune.records import EncodedRow
from medtune.runtime.hardware import input_device

# Tokens of one pass: few, so that weights which wait in host memory are all that a small GPU holds beside them.
PASS_TOKENS = 2048
# How much of one model's logits, in float32, is there at once; a comparison holds some copies of this.
LOGIT_BYTES = 2**27


@dataclass(frozen=True)
class AnswerStates:
    """Last hidden states of a model before each answer token, (positions, width), and its head.

    The head is called `within` a context: that of a base whose adapter is switched off has to be so then too.
    """

    hidden: Tensor
    head: Any
    change: Callable[[Tensor], Tensor] | None
    within: Callable[[], AbstractContextManager[Any]] = nullcontext

    def park(self) -> AnswerStates:
        """The same with the head in host memory, so that nothing of a model that is done with stays on its device."""
        if self.head.weight.device.type == "cuda":
            self.head.to("cpu")
        return self

    def log_probabilities(self, start: int, stop: int, device: torch.device) -> Tensor:
        """Those of every token of the vocabulary at these positions: (stop - start, vocabulary), float32."""
        weight = self.head.weight
        # A head that a `device_map` keeps elsewhere is fetched as it is called.
        place = device if weight.device.type == "meta" else weight.device
        with self.within():
            logits = self.head(self.hidden[start:stop].to(place))
        logits = logits if self.change is None else self.change(logits)
        return torch.log_softmax(logits.to(device).float(), dim=-1)


@torch.no_grad()
def answer_states(model: Any, rows: Sequence[EncodedRow], on_rows: Callable[[int], None]) -> AnswerStates:
    """The states of `model`, which may have an adapter, at the answer tokens of `rows`, always in the same order."""
    plain, device = unwrapped(model), input_device(model)
    states = []
    for indices in plan_passes(rows, PASS_TOKENS):
        batch = pack_rows([rows[i] for i in indices])
        positions = batch.pop("answer_positions")
        del batch["answer_labels"]
        batch = {key: value.to(device) if torch.is_tensor(value) else value for key, value in batch.items()}
        hidden = plain.base_model(**batch, use_cache=False).last_hidden_state.squeeze(0)
        states.append(hidden[positions.to(hidden.device)].cpu())
        on_rows(len(indices))
    return AnswerStates(torch.cat(states), plain.get_output_embeddings(), logit_change(plain.config.get_text_config()))


@dataclass(frozen=True)
class NextTokenAgreement:
    """For each answer token: the divergence of the second model's next token from the first's, and whether both think
    the same token the likeliest; (positions,) float64 and bool."""

    divergence: Tensor
    same: Tensor

    @property
    def share(self) -> float:
        """Positions at which both think the same token the likeliest."""
        return float(self.same.double().mean())

    def summary(self) -> Divergence:
        """Mean over all positions, 95th percentile, maximum."""
        values = self.divergence
        return Divergence(float(values.mean()), float(torch.quantile(values, 0.95)), float(values.max()))


@torch.no_grad()
def compare_states(first: AnswerStates, second: AnswerStates, device: torch.device) -> NextTokenAgreement:
    """KL(first ‖ second) = Σ p (log p - log q) over the whole vocabulary, at each position."""
    for states in (first, second):
        if states.head.weight.device.type != "meta":
            states.head.to(device)
    divergences, same = [], []
    vocabulary = first.head.weight.shape[0]
    rows = max(1, LOGIT_BYTES // (4 * vocabulary))
    for start in range(0, len(first.hidden), rows):
        stop = min(start + rows, len(first.hidden))
        p, q = (states.log_probabilities(start, stop, device) for states in (first, second))
        same.append((p.argmax(-1) == q.argmax(-1)).cpu())
        # A sum of a whole vocabulary of tiny terms may come out a little below zero.
        divergences.append((p.exp() * (p - q)).double().sum(-1).clamp(min=0).cpu())
    return NextTokenAgreement(torch.cat(divergences), torch.cat(same))


def same_prefix(first: Sequence[list[int]], second: Sequence[list[int]]) -> float:
    """Tokens before the first at which two answers differ, over all tokens; Σ / Σ over the longer of each pair."""
    shared = sum(len(list(takewhile(bool, map(eq, *pair)))) for pair in zip(first, second, strict=True))
    return shared / max(1, sum(max(map(len, pair)) for pair in zip(first, second, strict=True)))
