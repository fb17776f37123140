"""The Triton kernel of `decode_attention`: one program for a row and key head, and all query heads that share it.

A step reads the filled part of the cache once, which is what it costs; the softmax is computed online in float32
(Milakov and Gimelshein 2018).
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped, import-not-found"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# tl.dot takes no fewer rows; a group of 4 query heads leaves 12 of them empty, which costs no memory traffic.
_LEAST_GROUP = 16
# A key tile, a value tile and the queries take about 40 KiB of shared memory, so that several programs share an SM and
# one computes while another waits for its loads; even the smallest SMs (100 KiB) hold two.
_TILE_BYTES = 16 * 1024
_LARGEST_BLOCK = 128
_LOG2_E = 1.4426950408889634


@triton.jit
def _attend(
    query, keys, values, out, start, length, scale,
    query_row, query_head, key_row, key_head, key_position, value_row, value_head, value_position,
    group: tl.constexpr, padded_group: tl.constexpr, head_dim: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row, shared = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member = tl.arange(0, padded_group)[:, None]
    column = tl.arange(0, head_dim)[None, :]
    inside = member < group
    head = shared * group + member
    q = tl.load(query + row * query_row + head * query_head + column, mask=inside, other=0.0)
    keys += row * key_row + shared * key_head
    values += row * value_row + shared * value_head
    first, last = tl.load(start + row), tl.load(length)
    highest = tl.full((padded_group,), float("-inf"), tl.float32)
    total = tl.zeros((padded_group,), tl.float32)
    gathered = tl.zeros((padded_group, head_dim), tl.float32)
    # From the row's own first position: padding is never read, and so may hold anything.
    for begin in range(first, last, block):
        position = begin + tl.arange(0, block)
        filled = position < last
        k = tl.load(keys + position[:, None] * key_position + column, mask=filled[:, None], other=0.0)
        # "ieee": TF32 would round float32 to 10 bits, and float32 answers are to be exact.
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(filled[None, :], scores, float("-inf"))
        peak = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - peak[:, None])
        shrink = tl.exp2(highest - peak)
        v = tl.load(values + position[:, None] * value_position + column, mask=filled[:, None], other=0.0)
        gathered = gathered * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        total = total * shrink + tl.sum(weights, axis=1)
        highest = peak
    result = (gathered / total[:, None]).to(q.dtype)
    heads = tl.num_programs(1) * group
    tl.store(out + (row * heads + head) * head_dim + column, result, mask=inside)


def launch(query: Tensor, keys: Tensor, values: Tensor, start: Tensor, length: Tensor, scaling: float) -> Tensor:
    """`attend_last_token` for tensors whose last dimension is contiguous and a power of two of at least 16."""
    rows, heads, head_dim = query.shape
    key_heads = keys.shape[1]
    out = torch.empty((rows, heads, head_dim), dtype=query.dtype, device=query.device)
    _attend[(rows, key_heads)](
        query, keys, values, out, start, length, scaling * _LOG2_E,
        query.stride(0), query.stride(1), *keys.stride()[:3], *values.stride()[:3],
        group=heads // key_heads,
        padded_group=max(_LEAST_GROUP, triton.next_power_of_2(heads // key_heads)),
        head_dim=head_dim,
        block=min(_LARGEST_BLOCK, _TILE_BYTES // (head_dim * keys.element_size())),
        num_warps=4,
        num_stages=2,
    )  # fmt: skip
    return out
