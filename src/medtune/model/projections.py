"""LoRA projections of one input as one product: forward and backward passes on rows of tokens.

A projection is y = W x + s B A x (Hu et al. 2021). Projections that read the same input (query, key and value; gate and
up) share one product with the joined base weights and one with their joined A; each B adds into its part of the output
in place. The backward pass needs the input and the reduced rows A x, whose width is the rank. The base is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtune.model.base_weights import BaseWeights

ADAPTER = "default"


@dataclass(frozen=True, slots=True)
class Adapter:
    """Adapter matrices in the dtype they are computed in: A of all, (sum of ranks, inputs), and each B."""

    down: Tensor
    up: Sequence[Tensor]

    @staticmethod
    def of(parameters: Sequence[Tensor], dtype: torch.dtype) -> Adapter | None:
        """From float32 parameters as `Projections.parameters` orders them; None where there are none."""
        if not parameters:
            return None
        n = len(parameters) // 2
        down = [a.to(dtype) for a in parameters[:n]]
        return Adapter(down[0] if n == 1 else torch.cat(down), [b.to(dtype) for b in parameters[n:]])

    def part(self, rows: Tensor, place: int) -> Tensor:
        """The columns of rows of width (sum of ranks) that belong to the projection at `place`."""
        start = sum(up.shape[1] for up in self.up[:place])
        return rows[:, start : start + self.up[place].shape[1]]


class Projections:
    """Linear layers that read one input, each as PEFT wraps it, or bare."""

    def __init__(self, layers: Sequence[Any], *, keep: torch.dtype | None = None) -> None:
        """`layers` are PEFT's LoRA layers, all of them, or plain linear ones; `keep` is as in BaseWeights."""
        self.layers = list(layers)
        self.adapted = is_lora(layers[0])
        ranks = [layer.r[ADAPTER] for layer in layers] if self.adapted else []
        base = [layer.get_base_layer() if self.adapted else layer for layer in layers]
        # A product needs rows of whole 16 bytes.
        self.base = BaseWeights(base, keep=keep, columns=sum(ranks) if sum(ranks) % 8 == 0 else 0)
        # Held by themselves: finding them through PEFT's dictionaries costs the host more than launching a kernel.
        halves = ("lora_A", "lora_B") if self.adapted else ()
        self._matrices = [getattr(layer, half)[ADAPTER] for half in halves for layer in layers]

    @property
    def active(self) -> bool:
        """Whether the adapters take part: not within `disable_adapter`, not merged."""
        return not any(layer.disable_adapters or layer.merged for layer in self.layers) if self.adapted else True

    def parameters(self) -> list[Tensor]:
        """The adapters': A of every projection, (rank, inputs), then B of every projection, (outputs, rank)."""
        return [matrix.weight for matrix in self._matrices]

    def forward(
        self, x: Tensor, adapter: Adapter | None, residual: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows `x`, (tokens, inputs), through all: (tokens, sum of outputs), and A x, (tokens, sum of ranks).

        None comes back for A x where there is no adapter. `residual` is added.
        """
        output = self._product(x, self._weight(x.dtype), residual)
        if adapter is None:
            return output, None
        reduced = x @ adapter.down.t()
        for place, part in enumerate(self._parts(output)):
            part.addmm_(adapter.part(reduced, place), adapter.up[place].t(), alpha=self._scale(place))
        return output, reduced

    @property
    def columns(self) -> int:
        """Columns that rows for `forward_wide` have behind the inputs; 0 where it does without."""
        return self.base.columns

    def forward_wide(
        self, rows: Tensor, adapter: Adapter | None, residual: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `forward`, for rows with `columns` free behind the inputs, which A x fills.

        Base and adapter are one product, [x, A x] with [W, s B]: no pass over the outputs for each B. What comes back
        for A x is a part of `rows`.
        """
        if not self.columns or adapter is None:
            return self.forward(rows, adapter, residual)
        inputs = self.base.inputs
        reduced = rows[:, inputs:]
        torch.mm(rows[:, :inputs], adapter.down.t(), out=reduced)
        weight = self.base.matrix(rows.dtype)
        for place, part in enumerate(weight.split(self.base.sizes)):
            torch.mul(adapter.up[place], self._scale(place), out=adapter.part(part[:, inputs:], place))
        return self._product(rows, weight, residual), reduced

    def _product(self, rows: Tensor, weight: Tensor, residual: Tensor | None) -> Tensor:
        """`rows` through `weight`, with the base's biases and `residual` added."""
        start = residual
        if (bias := self.base.bias(rows.dtype)) is not None:
            start = bias if residual is None else residual + bias
        return rows @ weight.t() if start is None else torch.addmm(start, rows, weight.t())

    def _weight(self, dtype: torch.dtype) -> Tensor:
        return self.base.matrix(dtype)[:, : self.base.inputs]

    def input_gradient(
        self, gradient: Tensor, adapter: Adapter | None, *, wanted: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """From the outputs' gradient that of the input, (tokens, inputs), if `wanted`, and that of A x."""
        result = gradient @ self._weight(gradient.dtype) if wanted else None
        if adapter is None:
            return result, None
        reduced_gradient = gradient.new_empty((len(gradient), len(adapter.down)))
        for place, part in enumerate(self._parts(gradient)):
            torch.mm(part, self._scaled(adapter.up[place], place), out=adapter.part(reduced_gradient, place))
        if result is not None:
            result.addmm_(reduced_gradient, adapter.down)
        return result, reduced_gradient

    def adapter_gradients(
        self,
        gradient: Tensor,
        x: Tensor,
        reduced: Tensor | None,
        reduced_gradient: Tensor | None,
        adapter: Adapter | None,
    ) -> list[Tensor]:
        """The gradients of `parameters()`, in their order, float32. `reduced` is A x, computed anew if it is None."""
        if adapter is None or reduced_gradient is None:
            return []
        if reduced is None:
            reduced = x @ adapter.down.t()
        down = list(_wide_product(reduced_gradient.t(), x).split([up.shape[1] for up in adapter.up]))
        up = [
            self._scaled(_wide_product(part.t(), adapter.part(reduced, place)), place)
            for place, part in enumerate(self._parts(gradient))
        ]
        return down + up

    def _parts(self, rows: Tensor) -> Sequence[Tensor]:
        return rows.split(self.base.sizes, dim=1) if len(self.layers) > 1 else (rows,)

    def _scale(self, place: int) -> float:
        return float(self.layers[place].scaling[ADAPTER])

    def _scaled(self, value: Tensor, place: int) -> Tensor:
        return value if self._scale(place) == 1 else value * self._scale(place)


def _wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b as float32 (float64 for float64): gradients of weights are sums over many tokens."""
    if a.is_cuda and a.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(a, b, out_dtype=torch.float32)
    product = a @ b
    return product if product.dtype == torch.float64 else product.float()


def is_lora(module: nn.Module) -> bool:
    """Whether PEFT wraps this layer with LoRA."""
    from peft.tuners.lora.layer import LoraLayer

    return isinstance(module, LoraLayer)


def is_plain_lora(module: Any) -> bool:
    """Whether `module` is a linear layer with one LoRA adapter of the plain kind: no dropout, bias or variant."""
    if not is_lora(module) or list(module.lora_A) != [ADAPTER]:
        return False
    return (
        isinstance(module.get_base_layer(), nn.Linear)
        and not module.lora_variant
        and isinstance(module.lora_dropout[ADAPTER], nn.Identity)
        and module.lora_A[ADAPTER].bias is None
        and module.lora_B[ADAPTER].bias is None
    )
