"""The next token of each row of a batch: the most probable one, or one drawn as the row's own options say."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medtune.inference.decoders.greedy import best_tokens

# Below it a draw gives the most probable token, and dividing by it is no longer exact.
LOWEST_TEMPERATURE = 0.01


@dataclass(frozen=True, slots=True)
class Draws:
    """How a row's tokens are drawn: one number of its own generator decides each, whatever batch it is in."""

    temperature: float
    top_p: float
    generator: random.Random


def chooser(rows: Sequence[Draws | None]) -> Callable[[Tensor], Tensor] | None:
    """A function of logits (rows or more, vocabulary) that gives (rows or more,) tokens; None where all are greedy.

    A row without `Draws`, and any beyond `rows`, gets its most probable token.
    """
    drawn = [(place, draws) for place, draws in enumerate(rows) if draws is not None]
    if not drawn:
        return None
    places = [place for place, _ in drawn]

    def choose(logits: Tensor) -> Tensor:
        chosen = best_tokens(logits)
        numbers = [draws.generator.random() for _, draws in drawn]
        settings = torch.tensor(
            [[draws.temperature, draws.top_p, number] for (_, draws), number in zip(drawn, numbers, strict=True)],
            dtype=torch.float32,
        )
        chosen[places] = _draw(logits[places], *settings.to(logits.device).unsqueeze(-1).unbind(1))
        return chosen

    return choose


def _draw(logits: Tensor, temperature: Tensor, top_p: Tensor, numbers: Tensor) -> Tensor:
    """Tokens (rows,) for logits (rows, vocabulary); the other three are (rows, 1), `numbers` from 0 to below 1."""
    scores = logits.float()
    scores = (scores - scores.amax(-1, keepdim=True)) / temperature
    probabilities, order = scores.softmax(-1).sort(-1, descending=True)
    before = probabilities.cumsum(-1) - probabilities
    kept = torch.where(before < top_p, probabilities, 0.0)
    kept[:, 0] = probabilities[:, 0]
    reached = kept.cumsum(-1)
    place = torch.searchsorted(reached, numbers * reached[:, -1:], right=True)
    return order.gather(-1, place.clamp(max=(kept > 0).sum(-1, keepdim=True) - 1)).squeeze(-1)
