"""The functions of `plain`, which says what each does, by Triton kernels for NVIDIA GPUs: one pass over memory each.

Also the dequantisation of NF4 weights, and embeddings read from host memory. Everything computes in float32 inside,
whatever is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from medtune.model.kernels import triton_kernels as kernels

# Elements of one program's tile in the elementwise kernels.
_TILE = 1024
# Bytes of packed weights a program reads.
_PACKED_BYTES = 1024
# The highest rank of an adapter whose product is taken into an elementwise kernel.
_LOW_RANK = 64
# tl.dot takes no fewer rows; a group of 4 query heads leaves 12 of them empty, which costs no memory traffic.
_LEAST_GROUP = 16
# A key tile, a value tile and the queries take about 40 KiB of shared memory, so that several programs share an SM and
# one computes while another waits for its loads; even the smallest SMs (100 KiB) hold two.
_TILE_BYTES = 16 * 1024
_LARGEST_BLOCK = 128
_LOG2_E = 1.4426950408889634
_TRITON_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def with_room(like: Tensor, width: int, room: int) -> Tensor:
    return like.new_empty((len(like), width + room))


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, room: int = 0) -> tuple[Tensor, Tensor]:
    rows, width = x.shape
    out = with_room(x, width, room)
    rstd = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    kernels.rms_norm_kernel[(rows,)](
        x, weight, out, rstd, width, x.stride(0), width + room, eps, BLOCK=block, num_warps=_warps(block)
    )
    return out, rstd


def rms_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, add: Tensor | None = None) -> Tensor:
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    kernels.rms_norm_backward_kernel[(rows,)](
        gradient, x, weight, rstd, x if add is None else add, width, gradient.stride(0), x.stride(0),
        0 if add is None else add.stride(0), WITH_ADD=add is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return gradient


def rotate(source: Tensor, target: Tensor, cos: Tensor, sin: Tensor, *, backward: bool = False) -> None:
    # Half of head_dim is a power of two.
    tokens, heads, head_dim = source.shape
    kernels.rotate_kernel[(tokens,)](
        source, target, cos, sin, heads, *source.stride()[:2], *target.stride()[:2], cos.stride(0),
        -1.0 if backward else 1.0, HEADS=triton.next_power_of_2(heads), HALF=head_dim // 2, num_warps=4,
    )  # fmt: skip


def swiglu(gate_up: Tensor, *, room: int = 0) -> Tensor:
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = with_room(gate_up, width, room)
    kernels.swiglu_kernel[(rows, triton.cdiv(width, _TILE))](
        gate_up, out, width, gate_up.stride(0), width + room, BLOCK=_TILE, num_warps=4
    )
    return out


def swiglu_backward(gate_up: Tensor, gradient: Tensor, low_rank: tuple[Tensor, Tensor] | None = None) -> Tensor:
    # The output takes the place of `gradient`.
    rows, width = gradient.shape
    if low_rank is not None and len(low_rank[1]) > _LOW_RANK:
        gradient.addmm_(*low_rank)
        low_rank = None
    if low_rank is None:
        kernels.swiglu_backward_kernel[(rows, triton.cdiv(width, _TILE))](
            gate_up, gradient, width, gate_up.stride(0), BLOCK=_TILE, num_warps=4
        )
        return gradient
    reduced, down = low_rank
    kernels.swiglu_backward_low_rank_kernel[(triton.cdiv(width, 64), triton.cdiv(rows, 16))](
        gate_up, gradient, reduced, down, rows, width, gate_up.stride(0), reduced.stride(0), down.stride(0),
        RANK=len(down), RANK_BLOCK=max(16, triton.next_power_of_2(len(down))), ROWS=16, BLOCK=64, num_warps=4,
    )  # fmt: skip
    return gradient


def cross_entropy(logits: Tensor, labels: Tensor, *, with_gradient: bool) -> Tensor:
    rows, width = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    block = min(8192, triton.next_power_of_2(width))
    if rows:
        kernels.cross_entropy_kernel[(rows,)](
            logits, labels, losses, WIDTH=width, WITH_GRADIENT=with_gradient, BLOCK=block, num_warps=_warps(block)
        )
    return losses


def attend_last_token(
    query: Tensor, keys: Tensor, values: Tensor, start: Tensor, length: Tensor, scaling: float
) -> Tensor:
    # The last dimension is contiguous and one of `HEAD_DIMS`.
    rows, heads, head_dim = query.shape
    key_heads = keys.shape[1]
    out = torch.empty((rows, heads, head_dim), dtype=query.dtype, device=query.device)
    kernels.decode_attention_kernel[(rows, key_heads)](
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


class PackedWeights:
    """NF4 weights of bitsandbytes that are dequantised together, in one launch, one behind the other."""

    def __init__(self, weights: Sequence[Tensor], states: Sequence[Any]) -> None:
        """`weights` are packed, `states` their `QuantState`s; all alike but for their sizes. They stay in place."""
        self.weights, self.states = list(weights), list(states)
        rows, begin, program = [], 0, 0
        for weight, state in zip(weights, states, strict=True):
            second = state.state2 if state.nested else state
            offset = state.offset if state.nested else second.absmax
            count = int(state.shape.numel())
            parts = (weight, state.absmax, second.absmax, second.code, offset, state.code)
            rows.append([*(part.data_ptr() for part in parts), begin, count, program])
            begin, program = begin + int(state.shape[0]), program + triton.cdiv(count, 2 * _PACKED_BYTES)
        self.table = torch.tensor(rows, dtype=torch.int64).to(weights[0].device)
        self.programs = program
        # The compiler makes wide loads and stores of it.
        self.aligned = all(row[0] % 16 == row[7] % 32 == 0 for row in rows)

    def dequantize(self, out: Tensor) -> Tensor:
        """Fill `out`, (sum of outputs, inputs), whose rows may lie further apart than they are wide.

        The same numbers as bitsandbytes' own three kernels: each factor is rounded to float32 before the next.
        """
        state = self.states[0]
        second = state.state2 if state.nested else state
        kernels.dequantize_nf4_kernel[(self.programs,)](
            self.table, out, SEGMENTS=len(self.weights), NESTED=bool(state.nested), BLOCK_SIZE=state.blocksize,
            NESTED_BLOCK_SIZE=second.blocksize, BYTES=_PACKED_BYTES, ROUNDED=_TRITON_DTYPES[state.dtype],
            ALIGNED=self.aligned, WIDTH=out.shape[1], STRIDE=out.stride(0), num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
        return out


def gather_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` of `table`, (rows, width), onto the GPU; `table` may be page-locked host memory, read in place."""
    width = table.shape[1]
    flat = ids.reshape(-1)
    out = torch.empty((len(flat), width), dtype=table.dtype, device=ids.device)
    kernels.gather_rows_kernel[(len(flat), triton.cdiv(width, _TILE))](
        table, flat, out, width, BLOCK=_TILE, num_warps=4
    )
    return out.view(*ids.shape, width)


def _warps(block: int) -> int:
    return max(4, min(16, block // 512))
