"""The frozen base weights behind projections that are computed together, as one matrix in the compute dtype.

In 4 bit they are dequantised at every use, or once and kept: the same numbers, four times the memory. Around the
weights there is room for an adapter's matrices, so that base and adapter can be one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medtune.model.kernels import has_triton

# Rows that begin at whole cache lines are read faster: room beside them comes in this many elements.
ROOM_MULTIPLE = 64


class BaseWeights:
    """Linear layers of one input, their weights joined along the outputs: shape (sum of outputs, inputs)."""

    def __init__(self, layers: Sequence[nn.Linear], *, keep: torch.dtype | None = None, rank: int = 0) -> None:
        """`keep` is the dtype in which 4-bit weights are dequantised now and kept.

        `rank`, of all adapters together, says how much room there is: `rank` rows behind the outputs, and `room`
        columns behind the inputs.
        """
        self.layers = list(layers)
        self.sizes = [layer.out_features for layer in layers]
        self.inputs, self.outputs = layers[0].in_features, sum(self.sizes)
        self.rank, self.room = rank, room_for(rank)
        self.kept: Tensor | None = None
        self.packed = _packed(self.layers)
        if keep is not None and all(is_4bit(layer) for layer in layers):
            self.kept = self._dequantized(keep)
            for layer, part in zip(self.layers, self.kept[: self.outputs].split(self.sizes), strict=True):
                layer.forward = _dense_forward(layer, part[:, : self.inputs])  # type: ignore[method-assign]
        elif not any(is_4bit(layer) for layer in layers) and (rank or len(layers) > 1):
            # Already dense: one storage for all, so that joining costs no memory.
            self.kept = self._empty(layers[0].weight.data)
            for layer, part in zip(self.layers, self.kept[: self.outputs].split(self.sizes), strict=True):
                part[:, : self.inputs] = layer.weight.data
                layer.weight.data = part[:, : self.inputs]

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """All weights in `dtype`, (outputs + rank, inputs + room); a temporary where they stay in 4 bit.

        The room holds zeros, or what was last written there.
        """
        if self.kept is not None:
            return self.kept.to(dtype)
        if len(self.layers) == 1 and not is_4bit(self.layers[0]):
            return self.layers[0].weight.data.to(dtype)
        return self._dequantized(dtype)

    def release(self) -> None:
        """From now on dequantise at every use, and free the memory of what was kept; dense weights stay."""
        if self.kept is not None and all(is_4bit(layer) for layer in self.layers):
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
        if self.packed is not None:
            self.packed.dequantize(joined[: self.outputs, : self.inputs])
            return joined
        from bitsandbytes.functional import dequantize_4bit

        for layer, part in zip(self.layers, joined[: self.outputs].split(self.sizes), strict=True):
            dense = dequantize_4bit(layer.weight.data, _state(layer)) if is_4bit(layer) else layer.weight.data
            part[:, : self.inputs] = dense
        return joined

    def _empty(self, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Space for all weights, and zeros in the room."""
        shape = (self.outputs + self.rank, self.inputs + self.room)
        joined = torch.empty(shape, dtype=dtype or like.dtype, device=like.device)
        if self.rank:
            joined[: self.outputs, self.inputs :].zero_()
            joined[self.outputs :].zero_()
        return joined


def room_for(rank: int) -> int:
    """Columns of room for adapters of `rank` together."""
    return -(-rank // ROOM_MULTIPLE) * ROOM_MULTIPLE


def is_4bit(layer: nn.Module) -> bool:
    """Whether a layer's weight is packed in 4 bit."""
    return _state(layer) is not None


def dequantized_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """What the 4-bit weights of `model` take once they are dequantised to `dtype`."""
    states = [_state(module) for module in model.modules() if isinstance(module, nn.Linear)]
    return sum(state.shape.numel() * dtype.itemsize for state in states if state is not None)


def _state(layer: nn.Module) -> Any:
    return getattr(getattr(layer, "weight", None), "quant_state", None)


def _is_nf4(layer: nn.Module) -> bool:
    state = _state(layer)
    return state is not None and state.quant_type == "nf4"


def _packed(layers: Sequence[nn.Linear]) -> Any:
    """The layers' weights as one launch dequantises them, where a GPU's kernel can."""
    states = [_state(layer) for layer in layers]
    if not all(_is_nf4(layer) and layer.weight.is_cuda for layer in layers) or not has_triton():
        return None
    kinds = {(state.dtype, state.blocksize, state.nested, state.nested and state.state2.blocksize) for state in states}
    if len(kinds) > 1:
        return None
    from medtune.model.kernels.gpu import PackedWeights

    return PackedWeights([layer.weight.data for layer in layers], states)


def _dense_forward(layer: nn.Linear, weight: Tensor) -> Any:
    def forward(x: Tensor) -> Tensor:
        bias = None if layer.bias is None else layer.bias.to(x.dtype)
        return nn.functional.linear(x, weight.to(x.dtype), bias)

    return forward
