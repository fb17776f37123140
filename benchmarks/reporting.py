"""What every benchmark prints: one JSON line a measurement, with machine and versions beside the figures."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

GIB = 2**30
# Steps before the clock starts: compilation, autotuning and the allocator's growth are over by then.
WARMUP_STEPS = 3
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "liger-kernel", "unsloth")


def parse_options(arguments: Sequence[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`key=value` arguments over `defaults`, each value of its default's type. Exits on an unknown key."""
    options = dict(defaults)
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or key not in defaults:
            raise SystemExit(f"{argument}: not a key=value of {', '.join(defaults)}")
        kind = type(defaults[key])
        options[key] = bool(int(text)) if kind is bool else kind(text)
    return options


def print_measurement(**figures: Any) -> None:
    """The one line on standard output. A `device` among the figures is that of the process that was measured."""
    # Libraries print to sys.stdout, which scripts that load them point elsewhere.
    print(json.dumps({**machine(), **figures, "versions": versions()}), file=sys.__stdout__, flush=True)


def note(message: str) -> None:
    """What is not a measurement goes to standard error."""
    print(message, file=sys.stderr, flush=True)


def versions() -> dict[str, str]:
    """Versions of what is installed of `LIBRARIES`."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """The GPU, where this process uses one, or else the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return {"device": torch.cuda.get_device_name()}
    return {"device": f"{_processor()}, {os.cpu_count()} cores"}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def limit_gpu_memory(gib: float) -> None:
    """Hold this process to `gib` GiB of the GPU's memory, as on a smaller card; 0 is no limit."""
    import torch

    if gib:
        torch.cuda.set_per_process_memory_fraction(gib * GIB / torch.cuda.get_device_properties(0).total_memory)


def forget_peaks() -> None:
    """Peaks are counted from here on."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        note("the peak of host memory cannot be reset here: it is that of the whole process")


def peaks() -> dict[str, float | None]:
    """GiB since `forget_peaks`: what torch's allocator gave out on the GPU, and this process's resident set."""
    import torch

    gpu = torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None
    return {"peak_gib": None if gpu is None else round(gpu, 2), "host_peak_gib": _host_peak_gib()}


def _host_peak_gib() -> float | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) * 1024 / GIB, 2)


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
