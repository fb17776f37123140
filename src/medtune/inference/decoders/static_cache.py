"""A key-value cache in buffers of fixed shape, which a captured CUDA graph can write to and read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass(slots=True)
class Window:
    """Where the next forward pass writes: rows of the buffers; a slice of positions, or one position on the device."""

    rows: slice
    positions: slice | Tensor


class StaticRowsLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, (rows, key heads, positions, head_dim), allocated at its first update."""

    is_sliding = False

    def __init__(self, rows: int, positions: int, window: Window) -> None:
        super().__init__()
        self.rows = rows
        self.positions = positions
        self.window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take dtype, device and head shape from the model's first keys and values."""
        shape = (self.rows, key_states.shape[1], self.positions)
        self.keys = key_states.new_zeros(*shape, key_states.shape[-1])
        self.values = value_states.new_zeros(*shape, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (rows, key heads, tokens, head_dim) into the window.

        Prompts get back what they brought, since they attend to themselves alone; a step gets the rows' whole buffers.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values, place = self.keys[self.window.rows], self.values[self.window.rows], self.window.positions
        if isinstance(place, slice):
            keys[:, :, place] = key_states
            values[:, :, place] = value_states
            return key_states, value_states
        keys.index_copy_(2, place, key_states)
        values.index_copy_(2, place, value_states)
        return keys, values

    def get_seq_length(self) -> int:
        """Always 0: asked for masks alone, prompts come into an empty cache, and steps have no mask."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The tokens at hand, from position 0."""
        return query_length, 0

    def get_max_length(self) -> int:
        """How many positions a row has."""
        return self.positions


class StaticRowsCache(Cache):  # type: ignore[misc]
    """A `StaticRowsLayer` for each layer of a model; what the next pass writes is said once for all of them."""

    def __init__(self, layers: int, rows: int, positions: int) -> None:
        self.window = Window(slice(0, rows), slice(0, positions))
        super().__init__(layers=[StaticRowsLayer(rows, positions, self.window) for _ in range(layers)])

    def write_to(self, rows: slice, positions: slice | Tensor) -> None:
        """The next forward pass reads prompts of these rows and positions, or a token of each at one, (1,) int64."""
        self.window.rows, self.window.positions = rows, positions

    def buffers(self, filled: int) -> Iterator[Tensor]:
        """Every layer's keys and values up to position `filled`."""
        for layer in self.layers:
            yield layer.keys[:, :, :filled]
            yield layer.values[:, :, :filled]
