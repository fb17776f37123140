"""The adapters of one decoder layer in one stretch of memory: a single cast serves all of its products."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from medtune.model.fused.projections import Adapter, Projections


class Adapters(NamedTuple):
    """The adapter of each group of projections; None for a group without one."""

    qkv: Adapter | None
    output: Adapter | None
    gate_up: Adapter | None
    down: Adapter | None


class LayerAdapters:
    """The parameters of a layer's adapters, which stay PEFT's: their data are views of one tensor."""

    def __init__(self, groups: Sequence[Projections]) -> None:
        self.groups = groups
        self.flat: Tensor | None = None

    @property
    def parameters(self) -> list[Tensor]:
        """Group by group, as each group orders its own; what autograd is given and gets gradients for."""
        return [parameter for group in self.groups for parameter in group.parameters()]

    def cast(self, dtype: torch.dtype) -> Adapters:
        """All in `dtype`."""
        parameters = self.parameters
        if not parameters:
            return Adapters(None, None, None, None)
        pieces = self._together(parameters).to(dtype).split([p.numel() for p in parameters])
        adapters: list[Adapter | None] = []
        place = 0
        for group in self.groups:
            n = len(group.layers)
            if not group.adapted:
                adapters.append(None)
                continue
            own = parameters[place : place + 2 * n]
            # A of all projections of the group are neighbours: one matrix.
            first, width = pieces[place], own[0].shape[1]
            down = first.as_strided((sum(a.shape[0] for a in own[:n]), width), (width, 1))
            up = [piece.view(b.shape) for piece, b in zip(pieces[place + n : place + 2 * n], own[n:], strict=True)]
            adapters.append(Adapter(down, up))
            place += 2 * n
        return Adapters(*adapters)

    def _together(self, parameters: Sequence[Tensor]) -> Tensor:
        """The one tensor, made (again) where somebody gave a parameter other storage, as loading or casting may."""
        if self.flat is not None:
            address = self.flat.data_ptr()
            for parameter in parameters:
                if parameter.data_ptr() != address or parameter.dtype != self.flat.dtype:
                    break
                address += parameter.numel() * parameter.element_size()
            else:
                return self.flat
        with torch.no_grad():
            self.flat = torch.cat([parameter.reshape(-1) for parameter in parameters])
            vector_to_parameters(self.flat, parameters)
        return self.flat
