"""The same mathematics as in `plain`, by Triton kernels for NVIDIA GPUs: one pass over memory each.

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

from medtune.model.kernels import training_kernels as kernels

# Elements of one program's tile in the elementwise kernels.
_TILE = 1024
# Bytes of packed weights a program reads.
_PACKED_BYTES = 1024
# The highest rank of an adapter whose product is taken into an elementwise kernel.
_LOW_RANK = 64
_TRITON_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def with_room(like: Tensor, width: int, room: int) -> Tensor:
    """See `plain.with_room`."""
    return like.new_empty((len(like), width + room))


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, room: int = 0) -> tuple[Tensor, Tensor]:
    """See `plain.rms_norm`."""
    rows, width = x.shape
    out = with_room(x, width, room)
    rstd = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    kernels.rms_norm_kernel[(rows,)](
        x, weight, out, rstd, width, x.stride(0), width + room, eps, BLOCK=block, num_warps=_warps(block)
    )
    return out, rstd


def rms_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, add: Tensor | None = None) -> Tensor:
    """See `plain.rms_norm_backward`; overwrites `gradient`."""
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    kernels.rms_norm_backward_kernel[(rows,)](
        gradient, x, weight, rstd, x if add is None else add, width, gradient.stride(0), x.stride(0),
        0 if add is None else add.stride(0), WITH_ADD=add is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return gradient


def rotate(source: Tensor, target: Tensor, cos: Tensor, sin: Tensor, *, backward: bool = False) -> None:
    """See `plain.rotate`. Half of head_dim is a power of two."""
    tokens, heads, head_dim = source.shape
    kernels.rotate_kernel[(tokens,)](
        source, target, cos, sin, heads, *source.stride()[:2], *target.stride()[:2], cos.stride(0),
        -1.0 if backward else 1.0, HEADS=triton.next_power_of_2(heads), HALF=head_dim // 2, num_warps=4,
    )  # fmt: skip


def swiglu(gate_up: Tensor, *, room: int = 0) -> Tensor:
    """See `plain.swiglu`."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = with_room(gate_up, width, room)
    kernels.swiglu_kernel[(rows, triton.cdiv(width, _TILE))](
        gate_up, out, width, gate_up.stride(0), width + room, BLOCK=_TILE, num_warps=4
    )
    return out


def swiglu_backward(gate_up: Tensor, gradient: Tensor, low_rank: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """See `plain.swiglu_backward`; the output takes the place of `gradient`."""
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
    """See `plain.cross_entropy`."""
    rows, width = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    block = min(8192, triton.next_power_of_2(width))
    if rows:
        kernels.cross_entropy_kernel[(rows,)](
            logits, labels, losses, WIDTH=width, WITH_GRADIENT=with_gradient, BLOCK=block, num_warps=_warps(block)
        )
    return losses


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
