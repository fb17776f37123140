"""Kernels of the training step and of decoding: each in plain PyTorch, and as a Triton kernel for GPUs."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch


def kernels_for(x: torch.Tensor) -> ModuleType:
    """`gpu` for tensors on a GPU for which Triton is installed, else `plain`: modules with the same functions."""
    if x.is_cuda and has_triton():
        from medtune.model.kernels import gpu

        return gpu
    from medtune.model.kernels import plain

    return plain


@cache
def has_triton() -> bool:
    """Whether Triton is installed; it comes with torch's CUDA builds."""
    return find_spec("triton") is not None
