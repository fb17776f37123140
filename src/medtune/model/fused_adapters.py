"""LoRA projections as one autograd function: the low-rank product is added into the base output.

PEFT's forward pass of one projection is six operations with three results to keep; here it is three products into one
output. Projections that read the same input (query, key and value; gate and up) are computed together: the input is
read once for all their adapters and kept once for the backward pass, and their gradients are summed in place.

Modules, names and parameters stay PEFT's, so that adapters are saved and loaded as ever; only `forward` is replaced, on
the instance. The formulas are LoRA's (Hu et al. 2021): y = W x + s B A x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medtune.hardware import Choice, free_bytes

ADAPTER = "default"
# Of the free memory: activations, which grow with the micro-batch, need the rest.
DEQUANTIZED_SHARE = 1 / 3
# Children of one module that are called on the same tensor, one after the other.
SHARED_INPUTS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def fuse_adapters(model: Any, *, keep_dequantized: torch.dtype | None = None) -> int:
    """Replace the forward pass of every plain LoRA projection of a PeftModel; returns how many projections.

    Projections with dropout, biases in the adapter, or another variant of LoRA keep PEFT's own. `keep_dequantized`
    is the dtype in which 4-bit base weights are dequantised once and kept: the same numbers, 2 bytes a weight in 16
    bit, and no dequantisation in the step.
    """
    fused = 0
    for parent in list(model.modules()):
        children = {name: child for name, child in parent.named_children() if _is_plain_lora(child)}
        grouped = [names for names in SHARED_INPUTS if all(name in children for name in names)]
        alone = [(name,) for name in children if not any(name in names for names in grouped)]
        for names in [*grouped, *alone]:
            _Projections([children[name] for name in names], keep_dequantized).take_over()
            fused += len(names)
    return fused


def choose_weights(model: Any, wanted: str, dtype: torch.dtype, device: str) -> Choice:
    """`nf4` or `dequantized` for `training.weights`, and why."""
    size = dequantized_bytes(model, dtype)
    if size == 0:
        return Choice("nf4", "no weight is in 4 bit")
    if wanted != "auto":
        return Choice(wanted, "asked for")
    free = free_bytes(device)
    fits = size <= free * DEQUANTIZED_SHARE
    reason = f"{size / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free, the limit being a third"
    return Choice("dequantized" if fits else "nf4", reason)


def dequantized_bytes(model: Any, dtype: torch.dtype) -> int:
    """What the 4-bit weights of `model` take once they are dequantised to `dtype`."""
    from bitsandbytes.nn import Linear4bit

    weights = (module.weight for module in model.modules() if isinstance(module, Linear4bit))
    return sum(weight.quant_state.shape.numel() * dtype.itemsize for weight in weights)


def _is_plain_lora(module: nn.Module) -> bool:
    from peft.tuners.lora.layer import LoraLayer

    if not isinstance(module, LoraLayer) or list(module.lora_A) != [ADAPTER]:
        return False
    base = module.get_base_layer()
    return (
        isinstance(base, nn.Linear)
        and not module.lora_variant
        and isinstance(module.lora_dropout[ADAPTER], nn.Identity)
        and module.lora_A[ADAPTER].bias is None
        and module.lora_B[ADAPTER].bias is None
    )


class _Projections:
    """LoRA projections of one input, computed together when the first of them is called."""

    def __init__(self, layers: Sequence[Any], keep_dequantized: torch.dtype | None) -> None:
        self.layers = layers
        self.kept = [self._dequantized(layer, keep_dequantized) for layer in layers] if keep_dequantized else None
        self.source: Tensor | None = None
        self.waiting: dict[int, Tensor] = {}

    def take_over(self) -> None:
        for place, layer in enumerate(self.layers):
            layer.forward = self._forward_of(place, layer.forward)

    def _forward_of(self, place: int, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if any(layer.disable_adapters or layer.merged for layer in self.layers):
                return original(x, *args, **kwargs)
            if x is self.source and place in self.waiting:
                output = self.waiting.pop(place)
            else:
                # The first of them, or one that is called on an input of its own.
                outputs = _FusedLora.apply(x, self, *self._parameters())  # type: ignore[no-untyped-call]
                self.waiting = {other: out for other, out in enumerate(outputs) if other != place}
                self.source, output = x, outputs[place]
            if not self.waiting:
                self.source = None  # else the input would outlive the layer
            return output

        return forward

    def _parameters(self) -> list[Tensor]:
        down = [layer.lora_A[ADAPTER].weight for layer in self.layers]
        return down + [layer.lora_B[ADAPTER].weight for layer in self.layers]

    def scale(self, place: int) -> float:
        return float(self.layers[place].scaling[ADAPTER])

    def bias(self, place: int) -> Tensor | None:
        bias: Tensor | None = self.layers[place].get_base_layer().bias
        return bias

    def weight(self, place: int, dtype: torch.dtype) -> Tensor:
        """The base weight, shape (out, in), in `dtype`."""
        return self.kept[place].to(dtype) if self.kept else self._dequantized(self.layers[place], dtype)

    @staticmethod
    def _dequantized(layer: Any, dtype: torch.dtype) -> Tensor:
        weight: Tensor = layer.get_base_layer().weight
        state = getattr(weight, "quant_state", None)
        if state is None:
            return weight.data.to(dtype)
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, state).to(dtype)  # type: ignore[no-any-return]


class _FusedLora(torch.autograd.Function):
    """x, shape (…, in), through n projections: outputs of shape (…, out_i) in the dtype of x.

    Adapters are float32 and computed in the dtype of x; their gradients come back in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, projections: _Projections, *adapters: Tensor) -> tuple[Tensor, ...]:
        n = len(projections.layers)
        x = x.to(torch.get_autocast_dtype(x.device.type)) if torch.is_autocast_enabled(x.device.type) else x
        flat = x.reshape(-1, x.shape[-1])
        down = torch.cat([a.to(x.dtype) for a in adapters[:n]])
        ranks = [a.shape[0] for a in adapters[:n]]
        reduced = flat @ down.t()
        outputs = []
        for place, part in enumerate(torch.split(reduced, ranks, dim=1)):
            weight, bias = projections.weight(place, x.dtype), projections.bias(place)
            out = flat @ weight.t() if bias is None else torch.addmm(bias.to(x.dtype), flat, weight.t())
            del weight
            out.addmm_(part, adapters[n + place].to(x.dtype).t(), alpha=projections.scale(place))
            outputs.append(out.view(*x.shape[:-1], -1))
        ctx.save_for_backward(flat, reduced, *adapters)
        ctx.projections, ctx.ranks, ctx.shape = projections, ranks, x.shape
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        flat, reduced, *adapters = ctx.saved_tensors
        projections, n = ctx.projections, len(gradients)
        input_gradient: Tensor | None = None
        up_gradients, reduced_gradients = [], []
        for place, (gradient, part) in enumerate(zip(gradients, reduced.split(ctx.ranks, dim=1), strict=True)):
            rows, scale = gradient.reshape(-1, gradient.shape[-1]), projections.scale(place)
            up_gradients.append((rows.t() @ part).to(adapters[n + place].dtype).mul_(scale))
            reduced_gradients.append((rows @ adapters[n + place].to(rows.dtype)).mul_(scale))
            if ctx.needs_input_grad[0]:
                weight = projections.weight(place, rows.dtype)
                input_gradient = rows @ weight if input_gradient is None else input_gradient.addmm_(rows, weight)
        reduced_gradient = torch.cat(reduced_gradients, dim=1)
        down_gradient = reduced_gradient.t() @ flat
        if input_gradient is not None:
            down = torch.cat([a.to(flat.dtype) for a in adapters[:n]])
            input_gradient = input_gradient.addmm_(reduced_gradient, down).view(ctx.shape)
        down_gradients = [
            part.to(a.dtype) for part, a in zip(down_gradient.split(ctx.ranks), adapters[:n], strict=True)
        ]
        return (input_gradient, None, *down_gradients, *up_gradients)
