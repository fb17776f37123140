"""Fused layers and norms in autograd's graph: what is kept between their forward and their backward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medtune.model.attention import RowBounds
from medtune.model.kernels import kernels_for

if TYPE_CHECKING:
    from medtune.model.fused.layers import FusedLayer


@dataclass(frozen=True, slots=True)
class Packing:
    """The rows of a pack, and the rotary angles of its tokens, (tokens, head_dim)."""

    rows: RowBounds
    cos: Tensor
    sin: Tensor


@dataclass(slots=True)
class Kept:
    """What the backward pass of a layer reads. `attended` comes without a graph where that would keep too much."""

    first_rstd: Tensor
    qkv: tuple[Tensor, Tensor, Tensor]
    qkv_reduced: Tensor | None
    attended: Tensor
    output_reduced: Tensor | None
    middle: Tensor
    normed: Tensor | None = None
    pieces: list[KeptPiece] = field(default_factory=list)


@dataclass(slots=True)
class KeptPiece:
    """What the backward pass reads of the feed-forward part of some tokens; `gate_up` has room for the adapter."""

    rstd: Tensor
    gate_up: Tensor
    gate_up_reduced: Tensor | None
    down_reduced: Tensor | None = None
    normed: Tensor | None = None


class LayerFunction(torch.autograd.Function):
    """A FusedLayer in autograd's graph: hidden states (1, tokens, width) to the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FusedLayer, packing: Packing, *parameters: Tensor) -> Tensor:
        """The output of `layer`, which keeps its input alone or, unless it computes again, what `backward` reads."""
        ctx.layer, ctx.packing, ctx.kept = layer, packing, []
        rows = x.squeeze(0)
        ctx.stored = layer.store.put(rows) if layer.recompute and layer.store is not None else None
        ctx.save_for_backward(x if ctx.stored is None else None, *parameters)
        with torch.autocast(x.device.type, enabled=False):
            adapters = layer.adapters.cast(x.dtype)
            output = layer.compute(rows, packing, adapters, None if layer.recompute else ctx.kept)
        return output.unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """The gradients of the input, where it is wanted, and of the adapters' parameters."""
        x = ctx.saved_tensors[0]  # read even if not needed: autograd refuses parameters that changed since
        rows = ctx.stored.get() if x is None else x.squeeze(0)
        kept = ctx.kept.pop() if ctx.kept else None
        gradient = gradients[0].squeeze(0).contiguous()
        with torch.autocast(rows.device.type, enabled=False):
            result, adapter_gradients = ctx.layer.backward(
                gradient, rows, ctx.packing, ctx.layer.adapters.cast(rows.dtype), kept, wanted=ctx.needs_input_grad[0]
            )
        return (None if result is None else result.unsqueeze(0), None, None, *adapter_gradients)


class _Norm(torch.autograd.Function):
    """RMSNorm with a frozen weight, hidden states (…, width) to the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        output, rstd = kernels_for(x).rms_norm(rows, weight, eps)
        ctx.save_for_backward(rows, weight, rstd)
        return output.view(x.shape)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, weight, rstd = ctx.saved_tensors
        # A copy where the gradient is somebody else's too: the kernel writes over it.
        gradient = gradients[0].reshape(rows.shape).clone(memory_format=torch.contiguous_format)
        result = kernels_for(rows).rms_norm_backward(gradient, rows, weight, rstd)
        return result.view(gradients[0].shape), None, None


def fuse_norm(norm: Any) -> None:
    """Replace the forward pass of a norm of LLaMA's kind, on the instance."""

    def forward(hidden_states: Tensor) -> Tensor:
        output: Tensor = _Norm.apply(hidden_states, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
        return output

    norm.forward = forward
