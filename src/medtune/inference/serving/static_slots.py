"""Rows that join and leave in static buffers: on a GPU, where steps are replayed as CUDA graphs.

Every row writes its next key at the same position, and a row that joins is read in so that its prompt ends there. So
no row has to wait for another, and a step stays one graph whatever rows it has. Where the position reaches the end of
the buffers, all rows are moved to their beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from medtune.inference.decoders.decode_step import DecodeStep
from medtune.inference.decoders.greedy import best_tokens, last_logits, pad_left
from medtune.inference.decoders.static import close_ranks, prompt_passes, row_count
from medtune.inference.serving.slots import Choose, Slots
from medtune.runtime.hardware import input_device


class StaticSlots(Slots):
    """Up to `rows` rows whose prompts and answers together have up to `span` tokens.

    The buffers have room for `slack` steps more, so that they are moved only that often.
    """

    def __init__(
        self, model: Any, pad_token_id: int, *, rows: int, span: int, slack: int, steps_per_look: int, graphs: bool
    ) -> None:
        self.model = model
        self.pad_token_id = pad_token_id
        self.device = input_device(model)
        self.rows, self.positions, self.steps_per_look, self.graphs = rows, span + slack, steps_per_look, graphs
        self._step: DecodeStep | None = None
        self._starts: list[int] = []
        self._filled = 0

    def join(self, prompts: Sequence[list[int]], choose: Choose | None) -> list[int]:
        """As `Slots.join`."""
        step = self._ready_step()
        width, first = max(map(len, prompts)), len(self._starts)
        if first == 0:
            self._filled = width
        elif self._filled < width:
            self._move_by(step, width - self._filled)
        lengths = [len(prompt) for prompt in prompts]
        logits = []
        for rows in prompt_passes(lengths):
            ids, mask, positions = pad_left(prompts[rows], self.pad_token_id, self.device)
            places = slice(first + rows.start, first + rows.stop)
            step.cache.write_to(places, slice(self._filled - ids.shape[1], self._filled))
            logits.append(last_logits(self.model, ids, mask, positions, step.cache))
        chosen = (choose or best_tokens)(torch.cat(logits))
        step.tokens[first : first + len(prompts)] = chosen
        self._starts += [self._filled - length for length in lengths]
        self._tell_places(step)
        tokens: list[int] = chosen.tolist()
        return tokens

    def run(self, steps: int, choose: Choose | None) -> list[list[int]]:
        """As `Slots.run`; `steps_per_look` at most."""
        step = self._ready_step()
        if self._filled + steps > self.positions:
            self._move_by(step, -min(self._starts))
        tokens = step.run(row_count(len(self._starts), self.rows), steps, choose)
        self._filled += steps
        return tokens[: len(self._starts)]

    def keep(self, places: Sequence[int]) -> list[int]:
        """As `Slots.keep`; rows of higher places fill the gaps."""
        kept = set(places)
        owners = [place if place in kept else None for place in range(len(self._starts))]
        order, moves = close_ranks(owners, len(places))
        step = self._ready_step()
        if moves:
            step.move_rows(moves, self._filled)
        now = [place for place in order if place is not None]
        self._starts = [self._starts[place] for place in now]
        self._tell_places(step)
        return now

    def release(self) -> None:
        """As `Slots.release`, buffers and graphs included."""
        if self._step is not None:
            self._step.release()
        self._step, self._starts, self._filled = None, [], 0

    def _ready_step(self) -> DecodeStep:
        if self._step is None:
            self._step = DecodeStep(
                self.model,
                self.rows,
                self.positions,
                steps_per_look=self.steps_per_look,
                graphs=self.graphs,
                keep_logits=True,
            )
        return self._step

    def _move_by(self, step: DecodeStep, by: int) -> None:
        """Everything that is filled, `by` positions on, or back where it is negative."""
        first, rows = min(self._starts), len(self._starts)
        for buffer in step.cache.buffers(self.positions):
            buffer[:rows, :, first + by : self._filled + by] = buffer[:rows, :, first : self._filled].clone()
        self._starts = [start + by for start in self._starts]
        self._filled += by
        self._tell_places(step)

    def _tell_places(self, step: DecodeStep) -> None:
        # Rows without an owner read the one key that they write.
        starts = self._starts + [self._filled] * (self.rows - len(self._starts))
        step.start.copy_(torch.tensor(starts, dtype=torch.int32))
        step.position.fill_(self._filled)
        step.length.fill_(self._filled + 1)
