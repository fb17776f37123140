"""What every greedy decoder shares: its interface, padded prompts, and the choice of the next token."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Greedy:
    """Where answers end, and the token that fills up shorter rows, which nothing reads."""

    end_token_ids: Collection[int]
    max_new_tokens: int
    pad_token_id: int

    @classmethod
    def of(cls, tokenizer: Any, end_token_ids: Iterable[int], max_new_tokens: int) -> Greedy:
        """Filled up with the tokenizer's own token for that."""
        return cls(frozenset(end_token_ids), max_new_tokens, tokenizer.pad_token_id)


class Decoder(Protocol):
    """A way to decode batches of prompts, one after the other, none of which depends on another."""

    def reserve(self, rows: int, width: int) -> None:
        """Make ready for batches of up to `rows` prompts of up to `width` tokens."""
        ...

    def decode(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """The new tokens of each prompt, its end token included, in the order of `prompts`.

        Raises torch.OutOfMemoryError if the batch is too large; a smaller one may then be tried after `release`.
        """
        ...

    def release(self) -> None:
        """Let go of what is kept from batch to batch."""
        ...


@dataclass(frozen=True, slots=True)
class PaddedPrompts:
    """Prompts filled up on the left to one width; all tensors are (rows, width)."""

    ids: Tensor
    mask: Tensor
    positions: Tensor


def pad_left(prompts: Sequence[list[int]], pad_token_id: int, device: torch.device) -> PaddedPrompts:
    """One batch of `prompts`; a row's positions count its own tokens, from 0."""
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_token_id] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return PaddedPrompts(ids.to(device), mask.to(device), positions.to(device))


def last_logits(model: Any, tokens: Tensor, mask: Tensor | None, positions: Tensor, cache: Any, **more: Any) -> Tensor:
    """Logits of the last of `tokens`, (rows, vocabulary)."""
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **more,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def best_tokens(logits: Tensor) -> Tensor:
    """The most probable token of each row, (rows,); the first of equals.

    Without a float32 copy: 16-bit numbers compare as their float32 values do.
    """
    return logits.argmax(-1)
