"""Rows of a batch that join and leave while others go on: with a growing cache, on any device and for most models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from medtune.inference.decoders.greedy import best_tokens, last_logits, pad_left
from medtune.runtime.hardware import input_device

Choose = Callable[[Tensor], Tensor]


class Slots:
    """The rows that are decoded together, in an order that whoever holds them keeps too."""

    # Whether prompts can join rows that go on; if not, they wait until all of these have ended.
    can_join = True

    def join(self, prompts: Sequence[list[int]], choose: Choose | None) -> list[int]:
        """Read `prompts` into rows behind those that are there; each one's first new token.

        `choose` picks tokens from these rows' logits; without it, or where it is silent, the most probable one.
        """
        raise NotImplementedError

    def run(self, steps: int, choose: Choose | None) -> list[list[int]]:
        """Take `steps` steps; the new tokens of each row, those after an end token included."""
        raise NotImplementedError

    def keep(self, places: Sequence[int]) -> list[int]:
        """Let all rows go but those at `places`; says which of them is now at each place."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of all rows and of their memory."""
        raise NotImplementedError


class GrowingSlots(Slots):
    """Rows over transformers' growing cache. A row's keys end where all others' end, padded on the left."""

    def __init__(self, model: Any, pad_token_id: int) -> None:
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        self.model = model
        self.pad_token_id = pad_token_id
        self.device = input_device(model)
        # Windows that slide and recurrent states have no place for rows of another length.
        self.can_join = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
        self._cache: Any = None
        self._mask = self._positions = self._tokens = torch.empty(0)

    def join(self, prompts: Sequence[list[int]], choose: Choose | None) -> list[int]:
        """As `Slots.join`."""
        from transformers import DynamicCache

        ids, mask, positions = pad_left(prompts, self.pad_token_id, self.device)
        cache = DynamicCache(config=self.model.config)
        logits = last_logits(self.model, ids, mask, positions, cache)
        chosen = (choose or best_tokens)(logits).to(self.device)
        positions = positions[:, -1:] + 1
        if self._cache is None:
            self._cache, self._mask, self._positions, self._tokens = cache, mask, positions, chosen
        else:
            self._append(cache, mask)
            self._positions = torch.cat([self._positions, positions])
            self._tokens = torch.cat([self._tokens, chosen])
        tokens: list[int] = chosen.tolist()
        return tokens

    def run(self, steps: int, choose: Choose | None) -> list[list[int]]:
        """As `Slots.run`."""
        taken = []
        for _ in range(steps):
            self._mask = pad(self._mask, (0, 1), value=1)
            tokens = self._tokens.unsqueeze(1)
            logits = last_logits(self.model, tokens, self._mask, self._positions, self._cache)
            self._tokens = (choose or best_tokens)(logits).to(self.device)
            self._positions = self._positions + 1
            taken.append(self._tokens)
        rows: list[list[int]] = torch.stack(taken, 1).tolist()
        return rows

    def keep(self, places: Sequence[int]) -> list[int]:
        """As `Slots.keep`; the order stays."""
        if not places:
            self.release()
            return []
        if len(places) < len(self._tokens):
            rows = torch.tensor(places, device=self.device)
            self._cache.reorder_cache(rows)
            self._mask, self._positions, self._tokens = self._mask[rows], self._positions[rows], self._tokens[rows]
            self._trim()
        return list(places)

    def release(self) -> None:
        """As `Slots.release`."""
        self._cache = None
        self._mask = self._positions = self._tokens = torch.empty(0)

    def _append(self, cache: Any, mask: Tensor) -> None:
        """Rows of another cache below the rows here, the narrower of the two padded on the left."""
        wider = mask.shape[1] - self._mask.shape[1]
        here, there = max(wider, 0), max(-wider, 0)
        self._mask = torch.cat([pad(self._mask, (here, 0)), pad(mask, (there, 0))])
        for own, other in zip(self._cache.layers, cache.layers, strict=True):
            own.keys = torch.cat([pad(own.keys, (0, 0, here, 0)), pad(other.keys, (0, 0, there, 0))])
            own.values = torch.cat([pad(own.values, (0, 0, here, 0)), pad(other.values, (0, 0, there, 0))])

    def _trim(self) -> None:
        """Cut off what is padding in every row."""
        unused = int((self._mask.amax(0) == 0).sum()) if self.can_join else 0
        if unused:
            self._mask = self._mask[:, unused:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]
