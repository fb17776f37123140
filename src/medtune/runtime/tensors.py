"""Tensors that the processes of a launch exchange, through torch's process group: NCCL on GPUs, Gloo on CPUs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from medtune.runtime.distributed import PATIENCE, PeerEnded, end_of_another
from medtune.runtime.launch import joined_launch

if TYPE_CHECKING:
    import torch

# Seconds in which a process that has ended may have told why.
_TELLING = 1.0


def open_group() -> None:
    """Let the processes exchange tensors, on GPUs by NCCL and on CPUs by Gloo."""
    import torch
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    launch = joined_launch()
    if launch is None or torch.distributed.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(
        backend,
        store=PrefixStore("tensors", launch.store.clone()),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timedelta(seconds=PATIENCE),
    )
    if torch.cuda.is_available():  # now NCCL takes the memory that it wants, and no plan counts on that
        torch.distributed.all_reduce(torch.zeros(1, device="cuda"))


def add_up(tensor: torch.Tensor) -> Any:
    """Begin to replace `tensor` by its sum over the processes; `wait_for_sums` takes the result."""
    import torch

    return torch.distributed.all_reduce(tensor, async_op=True)


def gather_parts(whole: torch.Tensor, part: torch.Tensor) -> Any:
    """Begin to fill `whole` with every process's `part`, in order of rank; the result has `wait()`."""
    import torch

    return torch.distributed.all_gather_into_tensor(whole, part, async_op=True)


def any_process(holds: bool) -> bool:
    """Whether it `holds` in any process; all have to ask. The host waits for the others, and for no device.

    Raises PeerEnded as `wait_for_sums` does.
    """
    import torch

    told = torch.tensor([int(holds)])
    wait_for_sums([add_up(told)])
    return bool(told.item())


def wait_for_sums(begun: Iterable[Any]) -> None:
    """Wait until sums, or gathered parts, are there.

    Raises PeerEnded if a process has ended that should have taken part.
    """
    try:
        for work in begun:
            work.wait()
    except RuntimeError:
        launch = joined_launch()
        if launch is None:
            raise
        time.sleep(_TELLING)  # it may have told why
        raise end_of_another(launch, launch.store) or PeerEnded("another process of the launch has ended", 1) from None
