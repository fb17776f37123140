"""LoRA projections as one autograd function, for models whose decoder layers `fused_layers` does not cover.

PEFT's forward pass of one projection is six operations with three results to keep; here projections that read the same
input are one product, their input is read once for all their adapters and kept once for the backward pass.

Modules, names and parameters stay PEFT's, so that adapters are saved and loaded as ever; only `forward` is replaced, on
the instance.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from medtune.model.fused.projections import Adapter, Projections, is_plain_lora

# Children of one module that are called on the same tensor, one after the other.
SHARED_INPUTS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def fuse_adapters(model: Any, *, keep_dequantized: torch.dtype | None = None) -> int:
    """Replace the forward pass of every plain LoRA projection of a PeftModel; returns how many projections.

    Projections with dropout, biases in the adapter, or another variant of LoRA keep PEFT's own. `keep_dequantized`
    is the dtype in which 4-bit base weights are dequantised once and kept.
    """
    fused = 0
    for parent in list(model.modules()):
        children = {name: child for name, child in parent.named_children() if is_plain_lora(child)}
        grouped = [names for names in SHARED_INPUTS if all(name in children for name in names)]
        alone = [(name,) for name in children if not any(name in names for names in grouped)]
        for names in [*grouped, *alone]:
            share_input(Projections([children[name] for name in names], keep=keep_dequantized))
            fused += len(names)
    return fused


def share_input(projections: Projections) -> None:
    """Have LoRA layers that are called on one input, one after the other, computed together."""
    source: Tensor | None = None
    waiting: dict[int, Tensor] = {}

    def forward_of(place: int, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            nonlocal source, waiting
            if not projections.active:
                return original(x, *args, **kwargs)
            if x is source and place in waiting:
                output = waiting.pop(place)
            else:
                # The first of them, or one that is called on an input of its own.
                outputs = _FusedLora.apply(x, projections, *projections.parameters())  # type: ignore[no-untyped-call]
                waiting = {other: out for other, out in enumerate(outputs) if other != place}
                source, output = x, outputs[place]
            if not waiting:
                source = None  # else the input would outlive the layer
            return output

        return forward

    for place, layer in enumerate(projections.layers):
        layer.forward = forward_of(place, layer.forward)


class _FusedLora(torch.autograd.Function):
    """x, shape (…, in), through n projections: outputs of shape (…, out_i) in the dtype of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projections: Projections, *parameters: Tensor) -> tuple[Tensor, ...]:
        x = x.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x
        flat = x.reshape(-1, x.shape[-1])
        output, reduced = projections.forward(flat, Adapter.of(parameters, x.dtype))
        ctx.save_for_backward(flat, reduced, *parameters)
        ctx.projections, ctx.shape = projections, x.shape
        parts = [part.unflatten(0, x.shape[:-1]) for part in output.split(projections.base.sizes, dim=1)]
        if len(parts) > 1 and any(ctx.needs_input_grad):
            # Autograd takes several views of one tensor for outputs that may change each other.
            parts = [part.clone() for part in parts]
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        flat, reduced, *parameters = ctx.saved_tensors
        rows = [gradient.reshape(len(flat), -1) for gradient in gradients]
        gradient = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
        adapter = Adapter.of(parameters, gradient.dtype)
        result, reduced_gradient = ctx.projections.input_gradient(gradient, adapter, wanted=ctx.needs_input_grad[0])
        own = ctx.projections.adapter_gradients(gradient, flat, reduced, reduced_gradient, adapter)
        return (None if result is None else result.view(ctx.shape), None, *own)
