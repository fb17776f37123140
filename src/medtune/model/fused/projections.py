"""LoRA projections of one input as one product: forward and backward passes on rows of tokens.

A projection is y = W x + s B A x (Hu et al. 2021). Projections that read the same input (query, key and value; gate and
up) share one product with the joined base weights and one with their joined A. The backward pass needs the input and
the reduced rows A x, whose width is the rank. The base is frozen.

Base and adapter are one product where rows have room for it: y = [x, A x] [W, s B]' forwards, and backwards
dx = [dy, dy s B] [W; A]. No pass over the wide outputs or inputs is spent on the adapter's narrow products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medtune.model.base_weights import BaseWeights
from medtune.model.packing import filled_up

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

    def __init__(self, layers: Sequence[Any], *, keep: torch.dtype | None = None, wide: bool = False) -> None:
        """`layers` are PEFT's LoRA layers, all of them, or plain linear ones; `keep` is as in BaseWeights.

        `wide` says that rows with room come: the base weights have room then as well.
        """
        self.layers = list(layers)
        self.adapted = is_lora(layers[0])
        base = [layer.get_base_layer() if self.adapted else layer for layer in layers]
        self.base = BaseWeights(base, keep=keep, rank=joined_rank(layers) if wide else 0)
        # Columns behind the inputs, and behind the outputs' gradient, in rows that have room for the adapter.
        self.room = self.base.room
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
        base = self.base
        output = self._added(x @ base.matrix(x.dtype)[: base.outputs, : base.inputs].t(), residual)
        if adapter is None:
            return output, None
        reduced = x @ adapter.down.t()
        for place, part in enumerate(output.split(base.sizes, dim=1)):
            part.addmm_(adapter.part(reduced, place), adapter.up[place].t(), alpha=self._scale(place))
        return output, reduced

    def forward_wide(
        self, rows: Tensor, adapter: Adapter | None, residual: Tensor | None = None, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `forward`, for rows (tokens, inputs + room), whose room A x fills; into `out` if it is given.

        What comes back for A x is a part of `rows`.
        """
        base = self.base
        weight = base.matrix(rows.dtype)
        reduced = None
        if adapter is not None:
            reduced = self._fill(rows[:, base.inputs :], rows[:, : base.inputs], adapter.down.t())
            self._up(adapter, weight[:, base.inputs :])
        width = base.inputs + base.rank
        output = torch.mm(rows[:, :width], weight[: base.outputs, :width].t(), out=out)
        return self._added(output, residual), reduced

    def input_gradient(
        self, gradient: Tensor, adapter: Adapter | None, *, wanted: bool = True, through_adapter: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """From the outputs' gradient that of the input, (tokens, inputs), if `wanted`, and that of A x.

        Without `through_adapter` the input's lacks the part that comes through A: (gradient of A x) A is to be added.
        """
        base = self.base
        result = gradient @ base.matrix(gradient.dtype)[: base.outputs, : base.inputs] if wanted else None
        if adapter is None:
            return result, None
        reduced_gradient = gradient @ self._up(adapter)
        if result is not None and through_adapter:
            result.addmm_(reduced_gradient, adapter.down)
        return result, reduced_gradient

    def input_gradient_wide(
        self, gradient: Tensor, adapter: Adapter | None, *, wanted: bool = True, out: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """As `input_gradient`, for rows (tokens, outputs + room), whose room the gradient of A x fills."""
        base = self.base
        if not wanted:
            return self.input_gradient(gradient[:, : base.outputs], adapter, wanted=False)
        weight = base.matrix(gradient.dtype)
        reduced_gradient = None
        if adapter is not None:
            up = self._up(adapter, weight[:, base.inputs :])
            reduced_gradient = self._fill(gradient[:, base.outputs :], gradient[:, : base.outputs], up)
            weight[base.outputs :][: len(adapter.down), : base.inputs] = adapter.down
        width = base.outputs + base.rank
        return torch.mm(gradient[:, :width], weight[:width, : base.inputs], out=out), reduced_gradient

    def adapter_gradients(
        self,
        gradient: Tensor,
        x: Tensor,
        reduced: Tensor | None,
        reduced_gradient: Tensor | None,
        adapter: Adapter | None,
    ) -> list[Tensor]:
        """The gradients of `parameters()`, in their order, float32. `reduced` is A x, computed again if it is None.

        `gradient` and `x` may have room, which is not read.
        """
        if adapter is None or reduced_gradient is None:
            return []
        x, gradient = x[:, : self.base.inputs], gradient[:, : self.base.outputs]
        if reduced is None:
            reduced = x @ adapter.down.t()
        down = list(_wide_product(reduced_gradient.t(), x).split([up.shape[1] for up in adapter.up]))
        # Each B takes its block of the product with all A x: the rows are read once.
        blocks = _wide_product(reduced.t(), gradient).split(self.base.sizes, dim=1)
        up = [adapter.part(block.t(), place) * self._scale(place) for place, block in enumerate(blocks)]
        return down + up

    def _fill(self, room: Tensor, rows: Tensor, matrix: Tensor) -> Tensor:
        """`rows` times `matrix` in the first columns of `room`, zeros in the rest that products read."""
        rank = matrix.shape[1]
        if rank < self.base.rank:
            room[:, rank : self.base.rank].zero_()
        return torch.mm(rows, matrix, out=room[:, :rank])

    def _up(self, adapter: Adapter, room: Tensor | None = None) -> Tensor:
        """All s B as one matrix, (outputs, sum of ranks): a block for each projection, and zeros elsewhere.

        It is written into `room`, that of a base matrix, if it is given.
        """
        rank = len(adapter.down)
        if room is None:
            room = adapter.down.new_zeros((self.base.outputs, rank))
        blocks = room[: self.base.outputs, :rank]
        for place, part in enumerate(blocks.split(self.base.sizes)):
            torch.mul(adapter.up[place], self._scale(place), out=adapter.part(part, place))
        return blocks

    def _added(self, output: Tensor, residual: Tensor | None) -> Tensor:
        """`output` with biases and `residual` added, in place: products that add them are far slower than a sum."""
        for more in (self.base.bias(output.dtype), residual):
            if more is not None:
                output.add_(more)
        return output

    def _scale(self, place: int) -> float:
        return float(self.layers[place].scaling[ADAPTER])


def _wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b as float32 (float64 for float64): gradients of weights are sums over many tokens."""
    if a.is_cuda and a.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(a, b, out_dtype=torch.float32)
    product = a @ b
    return product if product.dtype == torch.float64 else product.float()


def joined_rank(layers: Sequence[Any]) -> int:
    """The ranks of the layers' adapters together, filled up to rows of whole 16 bytes, as products want them."""
    return filled_up(sum(layer.r[ADAPTER] for layer in layers), 8) if is_lora(layers[0]) else 0


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
