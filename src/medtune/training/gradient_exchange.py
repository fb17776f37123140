"""The sum of a step's gradients over all processes: one exchange a step, beside the last pass's backward computation.

Gradients are kept in a few flat float32 buffers. A buffer whose parameters are complete goes out while the backward
computation goes on to earlier layers. No process waits for another before its last pass, so that each splits its rows
into as many passes as its memory asks for, and begins again alone if that runs out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from medtune.runtime.tensors import add_up, open_group, wait_for_sums

# Bytes of one buffer: large enough for the full rate of a link, small enough that most are under way before the last
# layer is done. Distributed data parallel training has the same by default.
BUFFER_BYTES = 25 * 2**20


class GradientExchange:
    """Keeps the gradients of `parameters` where they can be added up, with `counts` numbers of the caller's."""

    def __init__(self, parameters: Sequence[Parameter], counts: int, buffer_bytes: int = BUFFER_BYTES) -> None:
        """Parameters are float32 and on one device, in the order in which a forward pass uses them."""
        open_group()
        self._groups = _groups(list(reversed(parameters)), buffer_bytes // 4)
        sizes = [[p.numel() for p in group] for group in self._groups]
        lengths = [sum(several) for several in sizes]
        lengths[-1] += counts  # known when the last gradient is
        self._buffers = [torch.zeros(length, dtype=torch.float32, device=parameters[0].device) for length in lengths]
        self.counts = self._buffers[-1][lengths[-1] - counts :]
        self._views = [
            [part.view_as(p) for part, p in zip(buffer[: sum(several)].split(several), group, strict=True)]
            for buffer, several, group in zip(self._buffers, sizes, self._groups, strict=True)
        ]
        self._place = {p: number for number, group in enumerate(self._groups) for p in group}
        self._under_way: list[Any] = []
        self._missing: list[int] = []
        self._hooks = [p.register_post_accumulate_grad_hook(self._is_complete) for p in self._place]

    def begin(self) -> None:
        """Start a step, or again the step that memory did not suffice for.

        What went out of a step that is begun again is complete and stays; only what did not is computed again.
        """
        self._missing = []
        for number, (group, buffer, views) in enumerate(zip(self._groups, self._buffers, self._views, strict=True)):
            if number < len(self._under_way):
                for parameter in group:
                    parameter.grad = None  # computed once more with the rest, and not used
                continue
            buffer.zero_()
            for parameter, view in zip(group, views, strict=True):
                parameter.grad = view

    def expect_last_pass(self) -> None:
        """From here on a gradient that is complete may go out."""
        self._missing = [len(group) for group in self._groups]

    def finish(self, *counts: torch.Tensor | float) -> list[float]:
        """Wait for the sums of all gradients, which are the parameters' then, and return those of `counts`.

        The host waits for the device.
        """
        self._missing = []
        for place, count in enumerate(counts):
            self.counts[place] = count
        while len(self._under_way) < len(self._buffers):
            self._send()
        wait_for_sums(self._under_way)
        self._under_way = []
        for group, views in zip(self._groups, self._views, strict=True):
            for parameter, view in zip(group, views, strict=True):
                parameter.grad = view
        sums: list[float] = self.counts.tolist()
        return sums

    def close(self) -> None:
        """Leave the parameters as they were."""
        for hook in self._hooks:
            hook.remove()

    def _is_complete(self, parameter: Parameter) -> None:
        if not self._missing:
            return
        self._missing[self._place[parameter]] -= 1
        # In one order in all processes. The last buffer waits for the counts.
        while (number := len(self._under_way)) < len(self._buffers) - 1 and self._missing[number] == 0:
            self._send()

    def _send(self) -> None:
        self._under_way.append(add_up(self._buffers[len(self._under_way)]))


def _groups(parameters: Sequence[Parameter], most: int) -> list[list[Parameter]]:
    """Neighbours together, of at most `most` numbers unless one alone has more."""
    groups: list[list[Parameter]] = []
    size = most + 1
    for parameter in parameters:
        if size + parameter.numel() > most:
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size += parameter.numel()
    return groups
