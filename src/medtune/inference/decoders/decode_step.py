"""One decoding step for many rows, and its cache, in buffers of fixed shape; on a GPU replayed as a CUDA graph.

A step of a large model launches a thousand and more kernels; launched one by one they take longer than they run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from medtune.inference.decoders.greedy import best_tokens, last_logits
from medtune.model.attention import DecodeSpan
from medtune.runtime import interruption
from medtune.runtime.hardware import input_device


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


class DecodeStep:
    """Static buffers of `rows` rows and `positions` cache positions, and the step that works on them.

    All that changes from step to step is on the device: `tokens`, each row's last token; `start`, its first position
    that is no padding; `position`, where the step writes; `length`, what is filled then; `record`, the last tokens
    chosen, (`steps_per_look`, rows), with `turn`, the place of the next. A captured step reads and advances them. With
    `keep_logits` those of the last step are in `logits`, (rows, vocabulary), for tokens that are not the most probable.
    """

    def __init__(
        self,
        model: Any,
        rows: int,
        positions: int,
        *,
        steps_per_look: int,
        graphs: bool,
        keep_logits: bool = False,
    ) -> None:
        self.model = model
        self.rows = rows
        self.positions = positions
        self.device = input_device(model)
        self.cache = StaticRowsCache(model.config.get_text_config().num_hidden_layers, rows, positions)
        self.tokens = torch.zeros(rows, dtype=torch.int64, device=self.device)
        self.start = torch.zeros(rows, dtype=torch.int32, device=self.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.length = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.record = torch.zeros(steps_per_look, rows, dtype=torch.int64, device=self.device)
        self.turn = torch.zeros(1, dtype=torch.int64, device=self.device)
        vocabulary = model.get_output_embeddings().weight.shape[0] if keep_logits else 0
        self.logits = torch.zeros(rows, vocabulary, dtype=model.dtype, device=self.device)
        self._graphs = _Graphs(self.device) if graphs else None

    def begin(self, width: int, prompt_lengths: Sequence[int]) -> None:
        """Prepare for prompts that end at position `width`. Rows without a prompt read their own new tokens alone."""
        self.start.fill_(width)
        starts = [width - length for length in prompt_lengths]
        self.start[: len(starts)] = torch.tensor(starts, dtype=torch.int32, device=self.device)
        self.position.fill_(width)
        self.length.fill_(width + 1)

    def run(self, rows: int, steps: int, choose: Callable[[Tensor], Tensor] | None = None) -> list[list[int]]:
        """Take `steps` steps, `steps_per_look` at most, with the first `rows` rows; each row's tokens, in order.

        Copying them to the host is the one time that it waits for the device. `choose` picks tokens from the logits
        that are kept; without it they are the most probable ones.
        """
        self.turn.zero_()
        for step in range(steps):
            if self._graphs is None:
                self._compute(rows)
            else:
                self._graphs.run(rows, lambda: self._compute(rows))
            if choose is not None:
                chosen = choose(self.logits[:rows])
                self.tokens[:rows].copy_(chosen)
                self.record[step, :rows].copy_(chosen)
        tokens: list[list[int]] = self.record[:steps, :rows].t().tolist()
        return tokens

    def move_rows(self, moves: Sequence[tuple[int, int]], filled: int) -> None:
        """Continue rows in other rows, (from, to); their caches are filled up to position `filled`.

        No row may be both.
        """
        sources, targets = (torch.tensor(rows, device=self.device) for rows in zip(*moves, strict=True))
        for buffer in (self.tokens, self.start, *self.cache.buffers(filled)):
            buffer.index_copy_(0, targets, buffer.index_select(0, sources))

    def release(self) -> None:
        """Free the graphs and their memory."""
        if self._graphs is not None:
            self._graphs.release()

    def _compute(self, rows: int) -> None:
        # Captured: no value may be read on the host here, nothing copied to the device, no buffer replaced.
        start = self.start[:rows]
        self.cache.write_to(slice(0, rows), self.position)
        logits = last_logits(
            self.model,
            self.tokens[:rows].unsqueeze(1),
            None,  # a mask would be as wide as the cache; the span says what a row reads
            (self.position - start).unsqueeze(1),
            self.cache,
            decode_span=DecodeSpan(start, self.length),
        )
        if self.logits.shape[1]:
            self.logits[:rows].copy_(logits)
        chosen = best_tokens(logits)
        self.tokens[:rows].copy_(chosen)
        self.record[:, :rows].index_copy_(0, self.turn, chosen.unsqueeze(0))
        for counter in (self.position, self.length, self.turn):
            counter.add_(1)


class _Graphs:
    """One CUDA graph for each number of rows, captured once that is needed; all share one memory pool.

    They may: replayed one after the other on one stream, they leave nothing behind in the pool that another reads.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.warm: set[int] = set()

    def run(self, rows: int, compute: Callable[[], None]) -> None:
        """Do `compute`: the first time as it is, the second time captured and replayed, from then on replayed."""
        if rows not in self.warm:
            # What kernels compile and libraries allocate at their first use must not happen during a capture.
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                compute()
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            self.warm.add(rows)
            return
        if rows not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            # Other threads (a progress bar, a data loader) may use the device meanwhile: "thread_local". A signal
            # waits: a capture that is broken off is an error of CUDA's.
            with (
                interruption.deferred(),
                torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"),
            ):
                compute()
            self.graphs[rows] = graph
        self.graphs[rows].replay()

    def release(self) -> None:
        for graph in self.graphs.values():
            graph.reset()
        self.graphs.clear()
        self.warm.clear()
        # What the pool held is kept apart from all other memory until it is given back to the device.
        torch.cuda.empty_cache()
