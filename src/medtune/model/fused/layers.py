"""Decoder layers of the LLaMA family as one autograd function each, for packed rows.

The backward pass is written out, so that a layer keeps what it must and nothing else: either its input alone, and
computes the rest again except its last product, which no gradient needs; or what the backward pass reads. Modules and
parameters stay what they were: `forward` is replaced on the instance, and calls with a cache or without packed rows go
the usual way.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from medtune.model.attention import RowBounds, attend_rows, spreads_key_heads
from medtune.model.decoder_structure import (
    can_fuse_layers,
    decoder_layers,
    projection_groups,
    rotates,
    sliding_window,
)
from medtune.model.fused.layer_adapters import Adapters, LayerAdapters
from medtune.model.fused.layer_function import Kept, KeptPiece, LayerFunction, Packing, fuse_norm
from medtune.model.fused.lora_function import share_input
from medtune.model.fused.projections import Projections
from medtune.model.host_store import HostStore
from medtune.model.kernels import kernels_for
from medtune.model.packing import balanced_slices
from medtune.model.sharding import ShardedWeights

# The feed-forward part goes through long packs in pieces of this many tokens, so that its width bounds memory.
FEED_FORWARD_TOKENS = 8192


class FusedLayer:
    """One decoder layer; `recompute` says whether it keeps its input alone, `store` where that is kept.

    `shards` puts its weights together where the processes of a launch share them out, as those of layer `number`.
    """

    def __init__(self, layer: Any, *, keep: torch.dtype | None = None) -> None:
        """`keep` is the dtype in which 4-bit base weights are dequantised once and kept."""
        self.attention = layer.self_attn
        self.groups = tuple(Projections(group, keep=keep, wide=True) for group in projection_groups(layer))
        self.qkv, self.output, self.gate_up, self.down = self.groups
        self.adapters = LayerAdapters(self.groups)
        for group in self.groups:
            if group.adapted:
                share_input(group)  # for calls that go the usual way
        self.norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self.head_dim = int(self.attention.head_dim)
        self.window = sliding_window(self.attention)
        self.rotates = rotates(self.attention)
        self.recompute = False
        self.store: HostStore | None = None
        self.shards: ShardedWeights | None = None
        self.number = 0
        self.replaced: Callable[..., Any] = layer.forward
        layer.forward = self.forward

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the layer's own, for packed rows, hidden states (1, tokens, width)."""
        packed, cache, angles = map(kwargs.get, ("cu_seq_lens_q", "past_key_values", "position_embeddings"))
        if self.shards is not None:
            self.shards.require(self.number, forward=True)
        if packed is None or cache is not None or angles is None or not all(group.active for group in self.groups):
            return self.replaced(hidden_states, *args, **kwargs)
        cos, sin = (angle.squeeze(0) for angle in angles)
        packing = Packing(RowBounds.of(kwargs), cos, sin)
        parameters = self.adapters.parameters
        if torch.is_grad_enabled() and any(x.requires_grad for x in (hidden_states, *parameters)):
            return LayerFunction.apply(hidden_states, self, packing, *parameters)  # type: ignore[no-untyped-call]
        with torch.no_grad(), torch.autocast(hidden_states.device.type, enabled=False):
            rows = hidden_states.squeeze(0)
            return self.compute(rows, packing, self.adapters.cast(rows.dtype)).unsqueeze(0)

    def compute(self, x: Tensor, packing: Packing, adapters: Adapters, kept: list[Kept] | None = None) -> Tensor:
        """The layer's output for rows `x`, (tokens, width); what a backward pass reads goes to `kept`."""
        differentiable = kept is not None and not spreads_key_heads(x.device, x.dtype, self.head_dim)
        state = self._attend(x, packing, adapters, differentiable=differentiable)
        state.normed = None  # cheap to have again, and as large as the input
        output = torch.empty_like(state.middle)
        for rows in balanced_slices(len(x), FEED_FORWARD_TOKENS):
            piece = self._feed_forward(state.middle[rows], adapters, out=output[rows], kept=kept is not None)
            if kept is not None:
                state.pieces.append(piece)
            del piece
        if kept is not None:
            state.qkv_reduced = _alone(state.qkv_reduced)
            kept.append(state)
        return output

    def _attend(self, x: Tensor, packing: Packing, adapters: Adapters, *, differentiable: bool) -> Kept:
        kernels = kernels_for(x)
        wide, rstd = self._norm(0, x, self.qkv.room)
        qkv, qkv_reduced = self.qkv.forward_wide(wide, adapters.qkv)
        normed = wide[:, : x.shape[1]]
        # Query and key heads lie side by side.
        turned = qkv[:, : sum(self.qkv.base.sizes[:2])].unflatten(1, (-1, self.head_dim))
        if self.rotates:
            kernels.rotate(turned, turned, packing.cos, packing.sin)
        query, key, value = (part.unflatten(1, (-1, self.head_dim)) for part in qkv.split(self.qkv.base.sizes, dim=1))
        query, key, value = (part.detach().requires_grad_() for part in (query, key, value))
        attended = self._attention((query, key, value), packing, differentiable=differentiable)
        rows = attended.detach().reshape(len(x), -1)
        middle, output_reduced = self.output.forward(rows, adapters.output, residual=x)
        return Kept(rstd, (query, key, value), qkv_reduced, attended, output_reduced, middle, normed)

    def _attention(self, qkv: tuple[Tensor, Tensor, Tensor], packing: Packing, *, differentiable: bool) -> Tensor:
        scaling, window = self.attention.scaling, self.window
        with torch.set_grad_enabled(differentiable):
            return attend_rows(*qkv, packing.rows, scaling=scaling, window=window)

    def _norm(self, place: int, x: Tensor, room: int = 0) -> tuple[Tensor, Tensor]:
        norm = self.norms[place]
        return kernels_for(x).rms_norm(x, norm.weight, norm.variance_epsilon, room=room)  # type: ignore[no-any-return]

    def _feed_forward(
        self, middle: Tensor, adapters: Adapters, *, out: Tensor | None = None, kept: bool = False
    ) -> KeptPiece:
        """What the backward pass reads, and the layer's output into `out`; without it the last product is left out.

        What is `kept` until the backward pass holds nothing that can be computed again.
        """
        kernels = kernels_for(middle)
        wide, rstd = self._norm(1, middle, self.gate_up.room)
        gate_up = kernels.with_room(middle, self.gate_up.base.outputs, self.gate_up.room)
        _, reduced = self.gate_up.forward_wide(wide, adapters.gate_up, out=self._without_room(gate_up))
        if out is None:
            return KeptPiece(rstd, gate_up, reduced, normed=wide[:, : middle.shape[1]])
        if kept:
            reduced = _alone(reduced)
        del wide
        activated = kernels.swiglu(self._without_room(gate_up), room=self.down.room)
        _, down_reduced = self.down.forward_wide(activated, adapters.down, residual=middle, out=out)
        if kept:
            down_reduced = _alone(down_reduced)
        return KeptPiece(rstd, gate_up, reduced, down_reduced)

    def _without_room(self, gate_up: Tensor) -> Tensor:
        return gate_up[:, : self.gate_up.base.outputs]

    def backward(
        self, gradient: Tensor, x: Tensor, packing: Packing, adapters: Adapters, kept: Kept | None,
        *, wanted: bool,
    ) -> tuple[Tensor | None, list[Tensor]]:  # fmt: skip
        """Gradients of rows `x`, unless they are not `wanted`, and of the adapters, from that of the output."""
        if self.shards is not None:
            self.shards.require(self.number, forward=False)
        if kept is None:
            kept = self._attend(x, packing, adapters, differentiable=True)
        middle_gradient = kernels_for(x).with_room(x, x.shape[1], self.output.room)
        totals: list[Tensor] = []
        for rows in balanced_slices(len(x), FEED_FORWARD_TOKENS):
            middle = kept.middle[rows]
            piece = kept.pieces.pop(0) if kept.pieces else self._feed_forward(middle, adapters)
            out = middle_gradient[rows, : x.shape[1]]
            gradients = self._feed_forward_backward(gradient[rows], middle, piece, adapters, out)
            del piece
            totals = [total + more for total, more in zip(totals, gradients, strict=True)] if totals else gradients
        result, gradients = self._attend_backward(middle_gradient, x, packing, adapters, kept, wanted=wanted)
        return result, gradients + totals

    def _feed_forward_backward(
        self, gradient: Tensor, middle: Tensor, piece: KeptPiece, adapters: Adapters, out: Tensor
    ) -> list[Tensor]:
        """The gradient of the rows `middle` goes to `out`."""
        kernels = kernels_for(middle)
        own, down_own = adapters.gate_up, adapters.down
        activated_gradient, down_reduced_gradient = self.down.input_gradient(gradient, down_own, through_adapter=False)
        low_rank = None if down_own is None else (down_reduced_gradient, down_own.down)
        activated = kernels.swiglu_backward(self._without_room(piece.gate_up), activated_gradient, low_rank)
        del activated_gradient
        down_gradients = self.down.adapter_gradients(
            gradient, activated, piece.down_reduced, down_reduced_gradient, down_own
        )
        del activated
        normed_gradient, reduced_gradient = self.gate_up.input_gradient_wide(piece.gate_up, own, out=out)
        normed = self._norm(1, middle)[0] if piece.normed is None else piece.normed
        gradients = self.gate_up.adapter_gradients(piece.gate_up, normed, piece.gate_up_reduced, reduced_gradient, own)
        del normed
        kernels.rms_norm_backward(normed_gradient, middle, self.norms[1].weight, piece.rstd, gradient)
        return gradients + down_gradients

    def _attend_backward(
        self, gradient: Tensor, x: Tensor, packing: Packing, adapters: Adapters, kept: Kept, *, wanted: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """`gradient` has room for the adapter of the output projection."""
        kernels = kernels_for(x)
        own, output_own = adapters.qkv, adapters.output
        attended_gradient, reduced_gradient = self.output.input_gradient_wide(gradient, output_own)
        assert attended_gradient is not None
        rows = kept.attended.detach().reshape(len(x), -1)
        output_gradients = self.output.adapter_gradients(
            gradient, rows, kept.output_reduced, reduced_gradient, output_own
        )
        attended = kept.attended
        if not attended.requires_grad:
            attended = self._attention(kept.qkv, packing, differentiable=True)
        query, key, value = torch.autograd.grad(attended, kept.qkv, attended_gradient.view(attended.shape))
        del attended_gradient, attended, rows
        joined = kernels.with_room(x, self.qkv.base.outputs, self.qkv.room)
        parts = joined[:, : self.qkv.base.outputs].split(self.qkv.base.sizes, dim=1)
        places = [part.unflatten(1, (-1, self.head_dim)) for part in parts]
        for part, place in zip((query, key), places, strict=False):
            if self.rotates:
                kernels.rotate(part, place, packing.cos, packing.sin, backward=True)
            else:
                place.copy_(part)
        places[2].copy_(value)
        del query, key, value
        normed_gradient, reduced_gradient = self.qkv.input_gradient_wide(joined, own, wanted=wanted)
        normed = self._norm(0, x)[0] if kept.normed is None else kept.normed
        gradients = self.qkv.adapter_gradients(joined, normed, kept.qkv_reduced, reduced_gradient, own)
        del normed, joined
        result = None
        if normed_gradient is not None:
            gradient = gradient[:, : x.shape[1]]
            result = kernels.rms_norm_backward(normed_gradient, x, self.norms[0].weight, kept.first_rstd, gradient)
        return result, gradients + output_gradients


def fuse_layers(
    model: nn.Module, *, keep_dequantized: torch.dtype | None = None, shards: ShardedWeights | None = None
) -> list[FusedLayer]:
    """Fuse every decoder layer of `model` and its last norm; none of them if `can_fuse_layers` says no.

    Returns the layers in their order. `keep_dequantized` is the dtype in which 4-bit base weights are dequantised once
    and kept; `shards` holds the weights where processes share them out.
    """
    if not can_fuse_layers(model):
        return []
    for norm in (module for name, module in model.named_modules() if name.endswith("model.norm")):
        fuse_norm(norm)
    layers = [FusedLayer(layer, keep=keep_dequantized) for layer in decoder_layers(model)]
    for number, layer in enumerate(layers):
        layer.shards, layer.number = shards, number
    return layers


def _alone(rows: Tensor | None) -> Tensor | None:
    """A copy that does not keep the wider rows alive which it is a part of."""
    return None if rows is None else rows.contiguous()
