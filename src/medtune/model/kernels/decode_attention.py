"""Attention of one new token a row to what a static key-value cache holds of that row.

Rows are left-padded to a common length, so all of them end at the same cache position and differ in where they start.
Where a row starts and ends is read on the device: a captured CUDA graph serves every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medtune.model.kernels import has_triton

# What a tile of the Triton kernel can be; the plain form takes any.
HEAD_DIMS = (16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class DecodeSpan:
    """The cache positions that each row reads: from `start`, (rows,), up to and without `length`, (1,); both int32.

    Every row reads at least one position.
    """

    start: Tensor
    length: Tensor


def attend_last_token(
    query: Tensor, keys: Tensor, values: Tensor, span: DecodeSpan, scaling: float | None = None
) -> Tensor:
    """Attention of `query`, (rows, heads, head_dim), to `keys` and `values`, (rows, key heads, positions, head_dim).

    Softmax in float32. Scores are multiplied by `scaling`, 1/√head_dim if it is None. Returns the shape of `query`.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.is_cuda and query.shape[-1] in HEAD_DIMS and has_triton():
        from medtune.model.kernels.decode_attention_kernel import launch

        return launch(query, keys, values, span.start, span.length, scaling)
    return attend_plainly(query, keys, values, span, scaling)


def attend_plainly(query: Tensor, keys: Tensor, values: Tensor, span: DecodeSpan, scaling: float) -> Tensor:
    """`attend_last_token` in plain PyTorch: it scores every position of the cache, those that a row reads or not."""
    positions = torch.arange(keys.shape[2], device=keys.device)
    unread = (positions < span.start[:, None]) | (positions >= span.length)
    unread = unread[:, None, :, None]
    groups = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])
    scores = (groups @ keys.transpose(2, 3)) * scaling
    scores = scores.masked_fill(unread.transpose(2, 3), float("-inf"))
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(values.dtype)
    # What nobody wrote or what padding left there may be NaN, and 0 x NaN is NaN.
    return (weights @ values.masked_fill(unread, 0)).reshape(query.shape)
