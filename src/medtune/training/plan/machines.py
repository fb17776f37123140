"""What training may take on the device and of the host, of this process and of all in a launch."""

from dataclasses import replace

import torch

from medtune.config.training import TrainingSection
from medtune.runtime.distributed import exchange
from medtune.runtime.hardware import free_bytes, host_free_bytes, matrix_rate
from medtune.runtime.launch import machine_processes
from medtune.training.plan.choosing import MARGIN
from medtune.training.plan.peaks import GIB, Machine

# The share of the available main memory that may become page-locked.
HOST_SHARE = 0.6


def this_machine(device: str, training: TrainingSection) -> Machine:
    """What training may take on `device` and of the host: what is free, less a margin, or what `training` says."""
    limit_gib, host_gib = training.memory_gib, training.host_memory_gib
    host = int(host_free_bytes() * HOST_SHARE / machine_processes() if host_gib is None else host_gib * GIB)
    allocated = 0 if device == "cpu" else int(torch.cuda.memory_allocated(device))
    limit = allocated + int(free_bytes(device) * MARGIN)
    if limit_gib is not None and device != "cpu":
        limit = min(limit, int(limit_gib * GIB))
    return Machine(allocated, limit, host, matrix_rate(device), offloads=device != "cpu")


def least_machine(machine: Machine) -> Machine:
    """What every process of a training has: all plan alike."""
    found = exchange([machine.allocated, machine.limit, machine.host, machine.operations])
    allocated, limit, host, rates = zip(*found, strict=True)
    rate = None if None in rates else min(rates)
    return replace(machine, allocated=max(allocated), limit=min(limit), host=min(host), operations=rate)
