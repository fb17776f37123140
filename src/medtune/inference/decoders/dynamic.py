"""Greedy decoding with transformers' growing key-value cache, as every model can do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from medtune.inference.decoders.greedy import Greedy, best_tokens, last_logits, pad_left
from medtune.runtime.hardware import input_device


class DynamicDecoder:
    """Decodes with a cache that grows by a token a step; a row leaves the batch at its end token."""

    def __init__(self, model: Any, greedy: Greedy) -> None:
        self.model = model
        self.greedy = greedy
        self.device = input_device(model)

    def reserve(self, rows: int, width: int) -> None:
        """Nothing is kept."""

    @torch.no_grad()
    def decode(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """As `Decoder.decode`."""
        from transformers import DynamicCache

        answers: list[list[int]] = [[] for _ in prompts]
        owners = list(range(len(prompts)))
        batch = pad_left(prompts, self.greedy.pad_token_id, self.device)
        # Each step reads a longer part of this one mask.
        mask = pad(batch.mask, (0, self.greedy.max_new_tokens), value=1)
        tokens, positions, width = batch.ids, batch.positions, batch.ids.shape[1]
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

    def release(self) -> None:
        """Nothing is kept."""
