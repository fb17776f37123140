"""What every greedy decoder shares, and the one that every model can use, with transformers' growing cache."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from medtune.runtime.hardware import input_device


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


class Decoder:
    """A way to decode batches of prompts, one after the other, none of which depends on another."""

    def __init__(self, model: Any, greedy: Greedy) -> None:
        self.model = model
        self.greedy = greedy
        self.device = input_device(model)

    def reserve(self, rows: int, width: int) -> None:
        """Make ready for batches of up to `rows` prompts of up to `width` tokens, where anything is kept."""

    def decode(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """The new tokens of each prompt, its end token included, in the order of `prompts`.

        Raises torch.OutOfMemoryError if the batch is too large; a smaller one may then be tried after `release`.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Let go of what is kept from batch to batch."""


def pad_left(prompts: Sequence[list[int]], pad_token_id: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and positions of `prompts` filled up on the left to one width; all are (rows, width).

    A row's positions count its own tokens, from 0.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_token_id] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return ids.to(device), mask.to(device), positions.to(device)


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


class DynamicDecoder(Decoder):
    """Decodes with a cache that grows by a token a step; a row leaves the batch at its end token. Nothing is kept."""

    @torch.no_grad()
    def decode(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """As `Decoder.decode`."""
        from transformers import DynamicCache

        answers: list[list[int]] = [[] for _ in prompts]
        owners = list(range(len(prompts)))
        tokens, mask, positions = pad_left(prompts, self.greedy.pad_token_id, self.device)
        width = tokens.shape[1]
        # Each step reads a longer part of this one mask.
        mask = pad(mask, (0, self.greedy.max_new_tokens), value=1)
        cache = DynamicCache(config=self.model.config)
        for step in range(self.greedy.max_new_tokens):
            logits = last_logits(self.model, tokens, mask[:, : width + step], positions, cache)
            chosen = best_tokens(logits).to(self.device)
            for owner, token in zip(owners, chosen.tolist(), strict=True):
                answers[owner].append(token)
            going = [row for row, owner in enumerate(owners) if answers[owner][-1] not in self.greedy.end_token_ids]
            if not going:
                break
            if len(going) < len(owners):
                owners = [owners[row] for row in going]
                rows = torch.tensor(going, device=self.device)
                # Not `batch_select_indices`, which layers with a recurrent state lack.
                cache.reorder_cache(rows)
                mask, positions, chosen = mask[rows], positions[rows], chosen[rows]
            tokens, positions = chosen.unsqueeze(1), positions[:, -1:] + 1
        return answers
