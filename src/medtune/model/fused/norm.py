"""RMSNorm with a frozen weight as one kernel each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from medtune.model.kernels import kernels_for


class _Norm(torch.autograd.Function):
    """RMSNorm with a frozen weight, hidden states (…, width) to the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        output, rstd = kernels_for(x).rms_norm(rows, weight, eps)
        ctx.save_for_backward(rows, weight, rstd)
        return output.view(x.shape)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        rows, weight, rstd = ctx.saved_tensors
        # A copy where the gradient is somebody else's too: the kernel writes over it.
        gradient = gradients[0].reshape(rows.shape).clone(memory_format=torch.contiguous_format)
        result = kernels_for(rows).rms_norm_backward(gradient, rows, weight, rstd)
        return result.view(gradients[0].shape), None, None


def fuse_norm(norm: Any) -> None:
    """Replace the forward pass of a norm of LLaMA's kind, on the instance."""

    def forward(hidden_states: Tensor) -> Tensor:
        output: Tensor = _Norm.apply(hidden_states, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
        return output

    norm.forward = forward
