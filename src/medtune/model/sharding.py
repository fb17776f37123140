"""Packed base weights shared out over the processes of a launch, for models that are larger than a GPU.

Each process keeps an equal part of the bytes of every decoder layer. A layer is put together where all processes need
it, just before, in one of two buffers, while the layer before it computes from the other. Bytes travel as they are, so
that every process multiplies the very numbers that a whole copy would hold. PyTorch's own `fully_shard` gathers into
memory that comes and goes; here addresses stay, which the kernels keep that read several packed weights in one launch,
and releases before 2.12, which refuse to shard bytes, do too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from medtune.errors import ModelError
from medtune.model.quantization import packed_layers
from medtune.runtime.launch import rank, world_size
from medtune.runtime.tensors import any_process, gather_parts, open_group, wait_for_sums

# Tensors begin at multiples of this many bytes, as the allocator's do: kernels read 16 at once.
ALIGNMENT = 256
# One is read while the other is filled.
BUFFERS = 2


@dataclass(slots=True)
class _Place:
    """Where one tensor of a layer lies in a buffer."""

    begin: int
    size: int


def shared_bytes(layer: int, layers: int, processes: int) -> int:
    """What each of `processes` holds of so many layers of `layer` bytes: parts of them all, and the buffers."""
    part = -(-layer // (processes * ALIGNMENT)) * ALIGNMENT
    return part * (layers + BUFFERS * processes)


class ShardedWeights:
    """The packed weights of decoder layers, each in as many parts as there are processes.

    All processes have to call `require` for the same layers in the same order: for as many passes, unless they go
    through `uneven_passes`.
    """

    def __init__(self) -> None:
        open_group()
        self.parts: list[Tensor] = []
        self.largest = 0
        self._buffers: list[Tensor] = []
        self._holds: list[int | None] = [None] * BUFFERS
        self._coming: list[Any] = [None] * BUFFERS
        # Whether the processes agree on every pass, and the layer that the forward pass in hand comes to next.
        self._uneven, self._next = False, 0
        # What is to be gathered for the passes that were promised, and how much of that has been.
        self._promised: list[tuple[int, bool]] = []
        self._kept = 0

    def add(self, layer: nn.Module) -> None:
        """Take over the next decoder layer, whose packed weights become views of a buffer.

        Raises ModelError if its weights are not packed, or unlike those of the layers before.
        """
        tensors = _packed_tensors(layer)
        if not tensors:
            raise ModelError("only packed weights are shared out", fix="set model.quantization to nf4")
        places, size = _layout(tensors, world_size() * ALIGNMENT)
        device = tensors[0][2].device
        if not self._buffers:
            self.largest = size
            self._buffers = [torch.empty(size, dtype=torch.uint8, device=device) for _ in range(BUFFERS)]
        if size != self.largest:
            raise ModelError("weights are shared out of models whose decoder layers are alike")
        number = len(self.parts)
        buffer = self._buffers[number % BUFFERS]
        for (owner, name, tensor), place in zip(tensors, places, strict=True):
            view = buffer[place.begin : place.begin + place.size].view(tensor.dtype).view(tensor.shape)
            view.copy_(tensor)
            _put(owner, name, view)
        length = size // world_size()
        self.parts.append(buffer[rank() * length : (rank() + 1) * length].clone())
        self._holds[number % BUFFERS] = number

    def append(self, part: Tensor) -> None:
        """Take over this process's part, in bytes, of what is gathered after all that was added before."""
        self.parts.append(part)

    def gathered(self, number: int) -> Tensor:
        """The bytes of `number`, which is required until then, as all processes' parts make them up."""
        return self._buffers[number % BUFFERS][: self.parts[number].numel() * world_size()]

    def require(self, number: int, *, forward: bool) -> None:
        """Have the weights of layer `number` in place, and those of the next one in this direction on their way.

        Raises PeerEnded if another process has ended that has a part of them.
        """
        if self._uneven and number == 0:
            self._finish_pass()
            any_process(True)
        self._gather(number, forward=forward)

    def promise(self, *passes: bool) -> None:
        """Say which passes come next in every process; True is one that comes back for a gradient."""
        forwards = [(number, True) for number in range(len(self.parts))]
        backwards = [(number, False) for number in reversed(range(len(self.parts)))]
        self._promised = [*chain.from_iterable(forwards + (backwards if back else []) for back in passes)]
        self._kept = 0

    def keep_promise(self) -> None:
        """Take part in what is left of these passes, for the other processes, after memory ran out in one of them."""
        for number, forward in self._promised[self._kept :]:
            self._gather(number, forward=forward)

    @contextmanager
    def uneven_passes(self) -> Iterator[None]:
        """Let each process make as many forward passes in this block as it has work for, and none backwards.

        Before each pass of any process all agree that there is one. Those without work take part in its gathers and
        compute nothing; so does, for the rest of a pass, the process whose memory ran out in it.
        """
        self._uneven = True
        try:
            yield
            self._finish_pass()
            while any_process(False):
                for number in range(len(self.parts)):
                    self._gather(number, forward=True)
        finally:
            self._uneven = False

    def _finish_pass(self) -> None:
        """Take part in what is left of a forward pass that was broken off."""
        while self._next:
            self._gather(self._next, forward=True)

    def _gather(self, number: int, *, forward: bool) -> None:
        self._next = (number + 1) % len(self.parts) if forward else 0
        self._kept += 1
        self._fetch(number)
        place = number % BUFFERS
        self._arrive(place)
        following = number + (1 if forward else -1)
        if 0 <= following < len(self.parts):
            self._fetch(following)

    def _fetch(self, number: int) -> None:
        place = number % BUFFERS
        if self._holds[place] == number:
            return
        self._arrive(place)  # where it was fetched for a direction that was not taken
        # On a GPU this waits for the work that has been asked for so far, which reads the buffer.
        self._coming[place] = gather_parts(self.gathered(number), self.parts[number])
        self._holds[place] = number

    def _arrive(self, place: int) -> None:
        if self._coming[place] is not None:
            wait_for_sums([self._coming[place]])
            self._coming[place] = None


def _packed_tensors(layer: nn.Module) -> list[tuple[Any, str, Tensor]]:
    """The packed weights of `layer` and their first scales, each with what holds it: 98 % of its bytes or more."""
    found: list[tuple[Any, str, Tensor]] = []
    for linear in packed_layers(layer):
        state: Any = linear.weight.quant_state  # type: ignore[attr-defined]
        found += [(linear.weight, "data", linear.weight.data), (state, "absmax", state.absmax)]
    return found


def _put(owner: Any, name: str, view: Tensor) -> None:
    setattr(owner, name, view)


def _layout(tensors: Sequence[tuple[Any, str, Tensor]], multiple: int) -> tuple[list[_Place], int]:
    """Where the tensors lie, one behind the other, and how many bytes that is, filled up to a `multiple`."""
    places, end = [], 0
    for _, _, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        places.append(_Place(end, size))
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return places, -(-end // multiple) * multiple
