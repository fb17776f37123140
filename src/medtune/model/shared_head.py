"""The head of a model whose weights processes share out: each keeps a part of it, and it is gathered slice by slice.

A slice is a part of the vocabulary that fits into a buffer of a decoder layer. The slices follow the last layer in
every pass; for a gradient they come once more, the last one first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from medtune.model.packing import balanced_slices, filled_up
from medtune.model.sharding import ShardedWeights
from medtune.runtime.launch import rank, world_size

# A head of fewer bytes stays whole in every process.
LEAST_BYTES = 2**28
# Bytes of float32 logits that exist at once.
LOGIT_BYTES = 2**26


class SharedHead(nn.Linear):
    """A frozen head without bias; its weight has no rows here, the parts are in `shards`."""

    def __init__(self, stored: Tensor, shards: ShardedWeights, *, dtype: torch.dtype, device: str) -> None:
        """Read this process's parts, and no more, of the weight `stored`, (vocabulary, width)."""
        vocabulary, width = stored.shape
        super().__init__(width, vocabulary, bias=False, device="meta")
        self.weight = nn.Parameter(torch.empty((0, width), dtype=dtype, device=device), requires_grad=False)
        self.shards, self.first, self.stored_dtype = shards, len(shards.parts), dtype
        self.own = rows_of_slice(shards.largest, width * dtype.itemsize, world_size()) // world_size()
        self.rows = self.own * world_size()
        for begin in range(rank() * self.own, filled_up(vocabulary, self.rows), self.rows):
            part = torch.zeros((self.own, width), dtype=dtype, device=device)
            rows = stored[begin : begin + self.own]
            part[: len(rows)] = rows.to(device, dtype)
            shards.append(part.view(-1).view(torch.uint8))

    def slices(self, dtype: torch.dtype, *, forward: bool) -> Iterator[tuple[int, Tensor]]:
        """Where each slice begins in the vocabulary, and its weights in `dtype`, (rows, width), while it is there."""
        numbers = range(len(self.shards.parts) - self.first)
        for number in numbers if forward else reversed(numbers):
            begin = number * self.rows
            self.shards.require(self.first + number, forward=forward)
            whole = self.shards.gathered(self.first + number).view(self.stored_dtype).view(self.rows, -1)
            yield begin, whole[: self.out_features - begin].to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, (…, width), for which no gradient can be had."""
        with torch.no_grad():
            logits = x.new_empty((*x.shape[:-1], self.out_features))
            for begin, weight in self.slices(x.dtype, forward=True):
                logits[..., begin : begin + len(weight)] = x @ weight.t()
        return logits


def rows_of_slice(buffer: int, row: int, processes: int) -> int:
    """How many rows of `row` bytes a slice has that fits into `buffer` bytes: a multiple of `processes`."""
    return buffer // (row * processes) * processes


class SharedHeadLoss(torch.autograd.Function):
    """Losses of the tokens at `positions` of `hidden`, (tokens, width), under a shared head.

    No logits of the whole vocabulary exist. The gradient by the hidden states is taken along with the losses.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, positions: Tensor, labels: Tensor, head: SharedHead) -> Tensor:
        """Negative log-likelihoods of `labels`, in float32, and the gradient where one is wanted."""
        rows = hidden.new_zeros((filled_up(len(positions)), hidden.shape[1]))
        rows[: len(positions)] = hidden[positions]
        labels = nn.functional.pad(labels, (0, len(rows) - len(positions)))
        pieces = balanced_slices(len(rows), max(1, LOGIT_BYTES // (4 * head.rows)))
        with torch.autocast(hidden.device.type, enabled=False):
            total, chosen = _sums(rows, labels, pieces, head)
            by_hidden = _gradient(rows, labels, pieces, head, total) if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(None if by_hidden is None else by_hidden[: len(positions)], positions)
        ctx.shape, ctx.dtype = hidden.shape, hidden.dtype
        return (total - chosen)[: len(positions)]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """The gradient of the hidden states."""
        by_row, positions = ctx.saved_tensors
        return gradient_of_hidden(by_row, positions, gradients[0], ctx.shape, ctx.dtype), None, None, None


def gradient_of_hidden(
    by_row: Tensor, positions: Tensor, by_loss: Tensor, shape: torch.Size, dtype: torch.dtype
) -> Tensor:
    """The gradient of the hidden states, of `shape`, from that of each row's loss by the row at its position.

    `by_loss`, (rows,), is what comes from the losses.
    """
    scaled = (by_row * by_loss.unsqueeze(1)).to(dtype)
    result = scaled.new_zeros(shape)
    result.index_copy_(0, positions, scaled)
    return result


def _sums(rows: Tensor, labels: Tensor, pieces: list[slice], head: SharedHead) -> tuple[Tensor, Tensor]:
    """The logarithm of each row's summed exponentials, and the logit of its label; both (rows,) in float32."""
    total = torch.full((len(rows),), -torch.inf, device=rows.device)
    chosen = torch.zeros(len(rows), device=rows.device)
    for begin, weight in head.slices(rows.dtype, forward=True):
        for piece in pieces:
            logits = (rows[piece] @ weight.t()).float()
            total[piece] = torch.logaddexp(total[piece], logits.logsumexp(1))
            places, is_here = _places(labels[piece], begin, len(weight))
            chosen[piece] += logits.gather(1, places).squeeze(1) * is_here
            del logits
    return total, chosen


def _gradient(rows: Tensor, labels: Tensor, pieces: list[slice], head: SharedHead, total: Tensor) -> Tensor:
    """The gradient of each row's loss by the row, (rows, width) in float32, in which the slices are added up."""
    result = torch.zeros(rows.shape, device=rows.device)
    for begin, weight in head.slices(rows.dtype, forward=False):
        for piece in pieces:
            shares = (rows[piece] @ weight.t()).float().sub_(total[piece].unsqueeze(1)).exp_()
            places, is_here = _places(labels[piece], begin, len(weight))
            shares.scatter_add_(1, places, -is_here.float().unsqueeze(1))
            result[piece] += shares.to(rows.dtype) @ weight
            del shares
    return result


def _places(labels: Tensor, begin: int, count: int) -> tuple[Tensor, Tensor]:
    """The columns of labels in a slice, (rows, 1), and whether they are in it, (rows,)."""
    places = labels - begin
    return places.clamp(0, count - 1).unsqueeze(1), (places >= 0) & (places < count)
