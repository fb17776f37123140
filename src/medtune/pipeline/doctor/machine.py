"""The GPU and its driver, what it computes in, and memory: what is here, whatever a recipe wants."""

import ctypes
import os
import re
from collections.abc import Iterable, Iterator

from medtune.pipeline.doctor.findings import Finding, amount
from medtune.runtime import hardware
from medtune.runtime.hardware import choose_device, choose_dtype
from medtune.runtime.launch import world_size

_NO_GPU = "no CUDA GPU is visible; models compute on the CPU"


def nvidia_driver() -> tuple[int, int] | None:
    """The newest CUDA version that the NVIDIA driver here serves; None without a driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    found = ctypes.c_int(0)
    # Part of the driver's interface that works before, and without, any GPU.
    if library.cuDriverGetVersion(ctypes.byref(found)) != 0 or found.value == 0:
        return None
    return found.value // 1000, found.value % 1000 // 10


def check_gpu() -> Iterator[Finding]:
    """The GPU that a run would take, or why there is none."""
    import torch

    if not torch.cuda.is_available():
        yield missing_gpu(torch.version.cuda, nvidia_driver(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        return
    device = choose_device()
    capability, count = torch.cuda.get_device_capability(device.value), torch.cuda.device_count()
    served = nvidia_driver()
    driver = f", whose driver serves CUDA {served[0]}.{served[1]}" if served is not None else ""
    reason = f"{device.reason}; compute capability {capability[0]}.{capability[1]}, torch for CUDA {torch.version.cuda}"
    architectures = torch.cuda.get_arch_list()
    if not runs_on(capability, architectures):
        reason += f", which has no kernels for it (only {', '.join(architectures)})"
        yield Finding("failure", "GPU", reason, "install a torch build for this GPU: https://pytorch.org/get-started")
    elif count > 1 and world_size() == 1:
        fix = "start training alone on all of them: `accelerate launch -m medtune train RUN`"
        yield Finding("warning", "GPU", reason + driver, fix)
    else:
        yield Finding("ok", "GPU", reason + driver)


def missing_gpu(built: str | None, served: tuple[int, int] | None, visible: str | None) -> Finding:
    """Why torch sees no GPU: `built` is the CUDA version of its build, `served` the newest that the driver serves,
    `visible` what CUDA_VISIBLE_DEVICES says."""
    if served is None:
        if built is None:
            return Finding("ok", "GPU", _NO_GPU)
        reason = f"{_NO_GPU}; torch is built for CUDA {built}, but there is no NVIDIA driver"
        return Finding("warning", "GPU", reason, "if there is a GPU, install its driver, or give it to the container")
    driver = f"an NVIDIA driver for CUDA {served[0]}.{served[1]} is here"
    if built is None:
        fix = "install torch's CUDA build: https://pytorch.org/get-started"
        return Finding("failure", "GPU", f"{driver}, but torch is built for CPUs alone", fix)
    if visible is not None and (visible.strip() == "" or visible.strip().startswith("-1")):
        return Finding("warning", "GPU", f"hidden by CUDA_VISIBLE_DEVICES={visible}; {driver}", "unset it to use them")
    if int(built.split(".")[0]) > served[0]:
        reason = f"{driver}, which is too old for torch's CUDA {built}"
        return Finding("failure", "GPU", reason, f"update the driver, or install torch built for CUDA {served[0]}")
    reason = f"{driver} and torch is built for CUDA {built}, yet it sees no GPU"
    return Finding("failure", "GPU", reason, "look at `nvidia-smi`; give the GPU to the container, or restart the host")


def runs_on(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether a torch build for `architectures` has kernels for a GPU of this compute capability.

    Machine code (sm_86) serves its own generation from its number on; intermediate code (compute_80) every later one.
    """
    targets = [(name.partition("_")[0], divmod(int(re.sub(r"\D", "", name) or 0), 10)) for name in architectures]
    return any(
        target <= capability and (kind == "compute" or (kind == "sm" and target[0] == capability[0]))
        for kind, target in targets
    )


def check_precision(wanted: str) -> Iterator[Finding]:
    """The dtype that is computed in, judged by compute capability."""
    choice = choose_dtype(wanted, choose_device().value)
    reason = f"{choice.value}: {choice.reason}"
    if wanted in ("auto", choice.value):
        yield Finding("ok", "precision", reason)
    else:
        yield Finding("warning", "precision", reason, "set model.dtype: auto, or use hardware that has it")


def check_attention(wanted: str) -> Iterator[Finding]:
    """The kernel that packed rows take."""
    from medtune.model.attention import attention_path

    device = choose_device().value
    path = attention_path(device, choose_dtype(wanted, device).value)
    yield Finding("ok", "attention", f"{path.value}: {path.reason}")


def check_memory() -> Iterator[Finding]:
    """What is free on the GPU and in the host."""
    device = choose_device().value
    if device != "cpu":
        free, total = amount(hardware.free_bytes(device)), amount(hardware.total_bytes(device))
        yield Finding("ok", "GPU memory", f"{free} of {total} free")
    free, total = amount(hardware.host_free_bytes()), amount(hardware.host_total_bytes())
    yield Finding("ok", "host memory", f"{free} of {total} free")
