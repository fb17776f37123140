"""Devices and precision: each automatic choice comes with its reason."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.runtime.launch import gpu_index, world_size

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Choice:
    """An automatic choice and why it was made."""

    value: str
    reason: str


def choose_device() -> Choice:
    """The device of this process: the GPU of its local rank, or the CPU."""
    import torch

    if not torch.cuda.is_available():
        return Choice("cpu", "no CUDA GPU is visible")
    index, count = gpu_index(), torch.cuda.device_count()
    name = torch.cuda.get_device_name(index)
    if count > 1 and world_size() == 1:
        return Choice("cuda:0", f"{name}, the first of {count} GPUs; with the option gpus=all a run uses them all")
    return Choice(f"cuda:{index}", name)


def choose_dtype(wanted: str, device: str) -> Choice:
    """The compute dtype for `device`: `wanted`, unless the hardware only emulates it.

    bfloat16 is judged by compute capability, since `torch.cuda.is_bf16_supported()` says yes on a T4 and emulates it.
    """
    if device != "cpu":
        import torch

        return choose_dtype_for(wanted, torch.cuda.get_device_capability(device))
    if wanted == "float16":
        return Choice("float32", "float16 was asked for, but CPUs train and score in float32")
    # Only matrix units make bfloat16 pay on a CPU; without them every product is converted.
    native = "amx_bf16" in _cpu_flags()
    return _choose_dtype(wanted, "float32", native, f"the CPU has {'' if native else 'no '}AMX bfloat16 units")


def choose_dtype_for(wanted: str, capability: tuple[int, int]) -> Choice:
    """As `choose_dtype`, for a GPU of this compute capability that need not be here."""
    major, minor = capability
    return _choose_dtype(wanted, "float16", major >= 8, f"compute capability {major}.{minor}, native from 8.0")


def _choose_dtype(wanted: str, fallback: str, native: bool, evidence: str) -> Choice:
    if wanted == "auto":
        return Choice("bfloat16", evidence) if native else Choice(fallback, f"no native bfloat16: {evidence}")
    if wanted == "bfloat16" and not native:
        return Choice(fallback, f"bfloat16 was asked for, but is not native here: {evidence}")
    return Choice(wanted, "asked for")


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.split())


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of that name."""
    import torch

    return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[name]


def input_device(model: Any) -> torch.device:
    """Where a model takes its inputs: its first parameter's device, or the CPU for one that is kept off the GPU."""
    import torch

    device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
    assert isinstance(device, torch.device)
    return device


def free_bytes(device: str) -> int:
    """Memory that a new allocation on `device` may take: free on the card and cached by torch, or available RAM."""
    import torch

    if device == "cpu":
        return host_free_bytes()
    free, total = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # A process may be held to a fraction of the card (set_per_process_memory_fraction); what is beyond is not ours.
    ceiling = torch.cuda.get_per_process_memory_fraction(device) * total - torch.cuda.memory_allocated(device)
    return int(min(free + cached, ceiling))


# Dense 16-bit operations of one multiprocessor in a clock, by compute capability (NVIDIA's architecture papers).
_OPERATIONS_A_CLOCK = {(7, 0): 1024, (7, 5): 1024, (8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096}
_NEWER = 4096


def matrix_rate(device: str) -> float | None:
    """Dense 16-bit matrix operations a second that a GPU reaches at most, from its properties; None for a CPU."""
    import torch

    if device == "cpu":
        return None
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    known = [operations for listed, operations in _OPERATIONS_A_CLOCK.items() if listed <= capability]
    a_clock = _OPERATIONS_A_CLOCK.get(capability, _NEWER if properties.major > 9 else (known or [512])[-1])
    # In kHz. Older torch does not tell; 1.5 GHz is near all of them.
    clock = getattr(properties, "clock_rate", 0) or 1_500_000
    return float(properties.multi_processor_count * a_clock * clock * 1000)


def total_bytes(device: str) -> int:
    """All the memory of `device`: of the card, or main memory."""
    import torch

    return host_total_bytes() if device == "cpu" else int(torch.cuda.get_device_properties(device).total_memory)


def host_free_bytes() -> int:
    """Main memory that is available."""
    import psutil

    return int(psutil.virtual_memory().available)


def host_total_bytes() -> int:
    """Main memory, free or not."""
    import psutil

    return int(psutil.virtual_memory().total)


def describe_hardware() -> dict[str, Any]:
    """Processor, memory and GPUs of this machine, for the provenance."""
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": host_total_bytes(),
        "gpus": [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "compute_capability": f"{gpu.major}.{gpu.minor}"}
            for gpu in gpus
        ],
    }


def release_memory() -> None:
    """Give back what finished models held: trainers and wrapped models are in reference cycles."""
    import gc

    gc.collect()
    if torch := _loaded_cuda():
        torch.cuda.empty_cache()


class PeakMemory:
    """Peak memory of this process since it was made: resident set in RAM, allocated by torch on the GPU."""

    def __init__(self) -> None:
        # Linux resets the high-water mark on request; elsewhere the peak is that of the whole process so far.
        try:
            self._resettable = Path("/proc/self/clear_refs").write_text("5") > 0
        except OSError:
            self._resettable = False
        # Before CUDA is initialised there is no allocator yet, whose peak could be forgotten.
        if (torch := _loaded_cuda()) and torch.cuda.is_initialized():
            for device in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(device)

    def rss_bytes(self) -> int:
        """Peak resident set."""
        if self._resettable:
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def gpu_bytes(self) -> int | None:
        """Peak of torch's allocator, summed over the GPUs; None without one."""
        torch = _loaded_cuda()
        if not torch:
            return None
        return sum(int(torch.cuda.max_memory_allocated(device)) for device in range(torch.cuda.device_count()))


def _loaded_cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_available() else None
