"""The frozen base weights of projections that are computed together, as one matrix in the compute dtype.

Packed weights are dequantised at every use, or once and kept: the same numbers, several times the memory. Around the
weights there is room for an adapter's matrices, so that base and adapter can be one product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medtune.model.packing import filled_up
from medtune.model.quantization import format_of

# Rows that begin at whole cache lines are read faster: room beside them comes in this many elements.
ROOM_MULTIPLE = 64


class BaseWeights:
    """Linear layers of one input, their weights joined along the outputs: shape (sum of outputs, inputs)."""

    def __init__(self, layers: Sequence[nn.Linear], *, keep: torch.dtype | None = None, rank: int = 0) -> None:
        """`keep` is the dtype in which packed weights are dequantised now and kept.

        `rank`, of all adapters together, says how much room there is: `rank` rows behind the outputs, and `room`
        columns behind the inputs.
        """
        self.layers = list(layers)
        self.sizes = [layer.out_features for layer in layers]
        self.inputs, self.outputs = layers[0].in_features, sum(self.sizes)
        self.rank, self.room = rank, filled_up(rank, ROOM_MULTIPLE)
        self.kept: Tensor | None = None
        self.formats = [format_of(layer) for layer in layers]
        self.all_packed = all(found.packed for found in self.formats)
        alike = len({found.name for found in self.formats}) == 1
        self.joined = self.formats[0].joined(self.layers) if alike else None
        if keep is not None and self.all_packed:
            self.kept = self._dequantized(keep)
            for layer, part in zip(self.layers, self.kept[: self.outputs].split(self.sizes), strict=True):
                layer.forward = _dense_forward(layer, part[:, : self.inputs])  # type: ignore[method-assign]
        elif not any(found.packed for found in self.formats) and (rank or len(layers) > 1):
            # Already dense: one storage for all, so that joining costs no memory.
            self.kept = self._empty(layers[0].weight.data)
            for layer, part in zip(self.layers, self.kept[: self.outputs].split(self.sizes), strict=True):
                part[:, : self.inputs] = layer.weight.data
                layer.weight.data = part[:, : self.inputs]

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """All weights in `dtype`, (outputs + rank, inputs + room); a temporary where they stay packed.

        The room holds zeros, or what was last written there.
        """
        if self.kept is not None:
            return self.kept.to(dtype)
        if len(self.layers) == 1 and not self.all_packed:
            return self.layers[0].weight.data.to(dtype)
        return self._dequantized(dtype)

    def release(self) -> None:
        """From now on dequantise at every use, and free the memory of what was kept; dense weights stay."""
        if self.kept is not None and self.all_packed:
            self.kept = None
            for layer in self.layers:
                del layer.forward  # the instance's own, which reads what was kept

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """All biases in `dtype`, or None where no layer has one."""
        if all(layer.bias is None for layer in self.layers):
            return None
        parts = [
            torch.zeros(size, dtype=dtype, device=layer.weight.device) if layer.bias is None else layer.bias.to(dtype)
            for layer, size in zip(self.layers, self.sizes, strict=True)
        ]
        return torch.cat(parts)

    def _dequantized(self, dtype: torch.dtype) -> Tensor:
        joined = self._empty(self.layers[0].weight, dtype)
        if self.joined is not None:
            self.joined.dequantize(joined[: self.outputs, : self.inputs])
            return joined
        parts = joined[: self.outputs].split(self.sizes)
        for found, layer, part in zip(self.formats, self.layers, parts, strict=True):
            part[:, : self.inputs] = found.dense(layer)
        return joined

    def _empty(self, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Space for all weights, and zeros in the room."""
        shape = (self.outputs + self.rank, self.inputs + self.room)
        joined = torch.empty(shape, dtype=dtype or like.dtype, device=like.device)
        if self.rank:
            joined[: self.outputs, self.inputs :].zero_()
            joined[self.outputs :].zero_()
        return joined


def _dense_forward(layer: nn.Linear, weight: Tensor) -> Any:
    def forward(x: Tensor) -> Tensor:
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return nn.functional.linear(x, weight.to(x.dtype), bias)

    return forward
