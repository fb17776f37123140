"""Attention for padding-free batches: every row attends to itself alone, causally.

Registered through transformers' public interfaces under `NAME`. Packed batches carry `cu_seq_lens_q` and no mask; steps
of decoding with a static cache carry `decode_span`; all other calls go to transformers' own SDPA attention unchanged,
except those of Gemma 2, whose cap on scores SDPA does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from medtune.model.kernels import kernels_for, plain
from medtune.runtime.hardware import Choice

NAME = "medtune_packed"
# What a tile of the Triton kernel for decoding can be; the plain form takes any.
HEAD_DIMS = (16, 32, 64, 128, 256)
# From how many tokens on a pack that is one row is worth a kernel of its own.
LONG_ROW = 2048


def register_packed_attention() -> str:
    """Make the backend known to transformers; returns its name for `attn_implementation`."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask)
    return NAME


def attention_path(device: str, dtype: str) -> Choice:
    """Which kernel packed rows take on `device`, and why."""
    if device == "cpu":
        return Choice("row-wise SDPA", "variable-length kernels need a GPU")
    major, minor = torch.cuda.get_device_capability(device)
    if dtype == "float32":
        return Choice("row-wise SDPA", "variable-length kernels need a 16-bit dtype")
    if major < 8:
        return Choice("row-wise SDPA", f"variable-length kernels need compute capability 8.0, this is {major}.{minor}")
    return Choice("torch.nn.attention.varlen", f"compute capability {major}.{minor}")


def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention over `query` (1, heads, tokens, head_dim) and `key`, `value` (1, kv heads, tokens, head_dim).

    Rows are bounded by `cu_seq_lens_q` (rows + 1, int32). Returns (1, tokens, heads, head_dim).
    """
    if (span := kwargs.get("decode_span")) is not None:  # one new token a row, and a static cache
        return attend_last_token(query.squeeze(2), key, value, span, kwargs.get("scaling")).unsqueeze(1), None
    bounds = kwargs.get("cu_seq_lens_q")
    if bounds is None and kwargs.get("softcap") is not None:
        return _capped(query, key, value, attention_mask, kwargs.get("scaling"), kwargs["softcap"]), None
    if bounds is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    q, k, v = (x.squeeze(0).transpose(0, 1) for x in (query, key, value))
    scaling, window, softcap = (kwargs.get(name) for name in ("scaling", "sliding_window", "softcap"))
    output = attend_rows(q, k, v, RowBounds.of(kwargs), scaling=scaling, window=window, softcap=softcap)
    return output.unsqueeze(0), None


@dataclass(frozen=True, slots=True)
class RowBounds:
    """Where the rows of a pack begin and end: `bounds` (rows + 1, int32), and the tokens of the longest.

    `edges` are the bounds once more on the host, where they are known: without them an old GPU would have to be waited
    for in every layer.
    """

    bounds: Tensor
    longest: int
    edges: Sequence[int] | None = None

    @staticmethod
    def of(kwargs: Mapping[str, Any]) -> RowBounds:
        """From what the model was called with (`medtune.model.packing`)."""
        return RowBounds(kwargs["cu_seq_lens_q"], int(kwargs["max_length_q"]), kwargs.get("row_edges"))


@dataclass(frozen=True, slots=True)
class DecodeSpan:
    """The cache positions that each row reads: from `start`, (rows,), up to and without `length`, (1,); both int32.

    Every row reads at least one position. Rows are left-padded, so all of them end at the same one. Both are read on
    the device: a captured CUDA graph serves every step.
    """

    start: Tensor
    length: Tensor


def attend_last_token(
    query: Tensor, keys: Tensor, values: Tensor, span: DecodeSpan, scaling: float | None = None
) -> Tensor:
    """Attention of a token a row, `query` (rows, heads, head_dim), to a static cache, `keys` and `values`
    (rows, key heads, positions, head_dim).

    Softmax in float32. Scores are multiplied by `scaling`, 1/√head_dim if it is None. Returns the shape of `query`.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    kernels = kernels_for(query) if query.shape[-1] in HEAD_DIMS else plain
    return kernels.attend_last_token(query, keys, values, span.start, span.length, scaling)  # type: ignore[no-any-return]


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: RowBounds,
    *,
    scaling: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Causal attention of packed rows, each to itself: `query` (tokens, heads, head_dim), `key` and `value` with fewer.

    Returns the shape of `query`, differentiable.
    """
    if softcap is None and _has_varlen(query.device, query.dtype, query.shape[-1]):
        if window is None and _is_one_long_row(rows, query.device):
            return _one_long_row(query, key, value, scaling)
        return _varlen(query, key, value, rows, scaling, window)
    dtype = query.dtype
    if not query.is_cuda and dtype == torch.bfloat16:
        # On a CPU attention in bfloat16 takes four times as long.
        query, key, value = query.float(), key.float(), value.float()
    edges = rows.bounds.tolist() if rows.edges is None else rows.edges
    lengths = [stop - start for start, stop in pairwise(edges)]
    groups = query.shape[1] // key.shape[1]
    # Key heads are not shared by `enable_gqa`: the memory-efficient kernel, which is what a T4 has, refuses it, and the
    # math kernel that would take its place keeps length x length scores in float32. Rows are not slices, each of which
    # would bring a gradient as long as the pack.
    query, key, value = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
    parts = (x.split(lengths, 2) for x in (query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)))
    outputs = [_one_row(q, k, v, scaling, window, softcap) for q, k, v in zip(*parts, strict=True)]
    return torch.cat(outputs, dim=2).squeeze(0).transpose(0, 1).to(dtype)


def spreads_key_heads(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether autograd keeps keys and values for every query head, and the output twice, of `attend_rows` on a GPU."""
    return device.type == "cuda" and not _has_varlen(device, dtype, head_dim)


def varlen_fits(capability: tuple[int, int], dtype: torch.dtype, head_dim: int) -> bool:
    """Whether a GPU of this compute capability has the kernel for rows of any lengths, which keeps the least."""
    return capability >= (8, 0) and dtype in (torch.float16, torch.bfloat16) and head_dim <= 256


def _one_row(
    q: Tensor, k: Tensor, v: Tensor, scaling: float | None, window: int | None, softcap: float | None
) -> Tensor:
    length = q.shape[2]
    reach = length if window is None else min(window, length)
    if softcap is None and reach == length:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    position = torch.arange(length, device=q.device)
    distance = position[:, None] - position[None, :]
    allowed = (distance >= 0) & (distance < reach)
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scaling)
    return _weighted(q, k, v, allowed, scaling, softcap)


def _weighted(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, scaling: float | None, softcap: float) -> Tensor:
    """Gemma 2 squashes its scores, which no fused kernel of torch does."""
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    # Not minus infinity: a place of padding may see nothing, and NaN would spread.
    scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """Padded rows, (rows, heads, tokens, head_dim), under a `mask` of what is seen; None: all that comes before."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if mask is None:
        mask = query.new_ones((query.shape[2], key.shape[2]), dtype=torch.bool)
        mask = mask.tril(key.shape[2] - query.shape[2])
    assert mask.dtype == torch.bool  # as transformers makes it for SDPA
    return _weighted(query, key, value, mask, scaling, softcap).transpose(1, 2)


def _is_one_long_row(rows: RowBounds, device: torch.device) -> bool:
    # From Hopper on SDPA prefers cuDNN; before, it has the kernel that rows of any lengths take.
    alone = rows.edges is not None and len(rows.edges) == 2
    return alone and rows.longest >= LONG_ROW and torch.cuda.get_device_capability(device) >= (9, 0)


def _one_long_row(q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
    """By cuDNN's kernels, which are faster than those for rows of any lengths; each length is compiled by itself."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
    output = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
    return output.squeeze(0).transpose(0, 1)


def _has_varlen(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    return device.type == "cuda" and varlen_fits(torch.cuda.get_device_capability(device), dtype, head_dim)


def _varlen(q: Tensor, k: Tensor, v: Tensor, rows: RowBounds, scaling: float | None, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    behind = -1 if window is None else window - 1
    bounds, longest = rows.bounds, rows.longest
    # Shared key heads have to be asked for from torch 2.13 on; before, the same kernel took them without a word.
    options: dict[str, Any] = {"enable_gqa": True} if _varlen_names_shared_heads() else {}
    output = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(behind, 0), **options)
    assert isinstance(output, Tensor)  # a tuple only where return_aux asks for one
    return output


@cache
def _varlen_names_shared_heads() -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in signature(varlen_attn).parameters


def _mask(
    *, q_length: int, attention_mask: Tensor | None = None, allow_is_causal_skip: bool = True, **kwargs: Any
) -> Tensor | None:
    # transformers has seen several rows in `position_ids` and would build a dense mask, tokens by tokens, for them;
    # `packed_attention` keeps rows apart by their bounds instead.
    if attention_mask is None and not allow_is_causal_skip and q_length > 1:
        return None
    options = {"attention_mask": attention_mask, "allow_is_causal_skip": allow_is_causal_skip, **kwargs}
    return sdpa_mask(q_length=q_length, **options)  # type: ignore[no-any-return]
