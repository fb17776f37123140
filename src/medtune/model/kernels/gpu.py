"""The same mathematics as in `plain`, as Triton kernels for NVIDIA GPUs: one pass over memory each.

Also the dequantisation of NF4 weights in one launch. Everything computes in float32 inside, whatever is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Elements of one program's tile in the elementwise kernels.
_TILE = 1024
# Bytes of packed weights a program reads.
_PACKED_BYTES = 1024
_TRITON_DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


@triton.jit
def _rms_norm(x, weight, out, rstd_out, width, x_stride, out_stride, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    values = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(values * values) / width + eps)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, values * rstd * scale, mask=inside)
    tl.store(rstd_out + row, rstd)


@triton.jit
def _rms_norm_backward(
    gradient, x, weight, rstd_in, add, out, width, x_stride, add_stride, WITH_ADD: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    rstd = tl.load(rstd_in + row)
    normed = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32) * rstd
    inner = tl.load(gradient + row * width + column, mask=inside, other=0.0).to(tl.float32)
    inner *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    inner = (inner - normed * (tl.sum(inner * normed) / width)) * rstd
    if WITH_ADD:
        inner += tl.load(add + row * add_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, inner, mask=inside)


@triton.jit
def _rotate(
    source, target, cos, sin, heads, source_stride, target_stride, angle_stride, sign,
    HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < HALF)
    place = head * (2 * HALF) + column
    first = tl.load(source + token * source_stride + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + token * source_stride + place + HALF, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + token * angle_stride + column).to(tl.float32)
    s = tl.load(sin + token * angle_stride + column).to(tl.float32) * sign
    tl.store(target + token * target_stride + place, first * c - second * s, mask=inside)
    tl.store(target + token * target_stride + place + HALF, second * c + first * s, mask=inside)


@triton.jit
def _swiglu(gate_up, out, width, out_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, gate * tl.sigmoid(gate) * up, mask=inside)


@triton.jit
def _swiglu_backward(gate_up, gradient, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate_place, up_place = gate_up + row * 2 * width + column, gate_up + row * 2 * width + width + column
    gate = tl.load(gate_place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_place, mask=inside, other=0.0).to(tl.float32)
    incoming = tl.load(gradient + row * width + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    activated = gate * sigmoid
    tl.store(gate_place, incoming * up * (sigmoid + activated * (1 - sigmoid)), mask=inside)
    tl.store(up_place, incoming * activated, mask=inside)
    tl.store(gradient + row * width + column, activated * up, mask=inside)


@triton.jit
def _cross_entropy(logits, labels, losses, WIDTH: tl.constexpr, WITH_GRADIENT: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * WIDTH
    label = tl.load(labels + row)
    chosen = tl.load(base + label).to(tl.float32)
    highest = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, WIDTH, BLOCK):
        column = start + tl.arange(0, BLOCK)
        values = tl.load(base + column, mask=column < WIDTH, other=float("-inf")).to(tl.float32)
        peak = tl.maximum(highest, tl.max(values))
        total = total * tl.exp(highest - peak) + tl.sum(tl.exp(values - peak))
        highest = peak
    tl.store(losses + row, highest + tl.log(total) - chosen)
    if WITH_GRADIENT:
        for start in range(0, WIDTH, BLOCK):
            column = start + tl.arange(0, BLOCK)
            values = tl.load(base + column, mask=column < WIDTH, other=float("-inf")).to(tl.float32)
            values = tl.exp(values - highest) / total - tl.where(column == label, 1.0, 0.0)
            tl.store(base + column, values, mask=column < WIDTH)


@triton.jit
def _dequantize_nf4(
    table, out, SEGMENTS: tl.constexpr, NESTED: tl.constexpr, BLOCK_SIZE: tl.constexpr, NESTED_BLOCK_SIZE: tl.constexpr,
    BYTES: tl.constexpr, ROUNDED: tl.constexpr, ALIGNED: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr,
):  # fmt: skip
    # A row of `table` is a weight: addresses of its parts, its first row in `out`, how many elements it has, and its
    # first program. This program's weight is the last one that begins at or before it.
    program = tl.program_id(0).to(tl.int64)
    segment = 0
    for other in tl.static_range(1, SEGMENTS):
        segment = tl.where(tl.load(table + other * 9 + 8) <= program, other, segment)
    row = table + segment * 9
    packed = tl.load(row).to(tl.pointer_type(tl.uint8))
    absmax_scale = tl.load(row + 2).to(tl.pointer_type(tl.float32))
    absmax_code = tl.load(row + 3).to(tl.pointer_type(tl.float32))
    code = tl.load(row + 5).to(tl.pointer_type(tl.float32))
    begin, count, first_program = tl.load(row + 6), tl.load(row + 7), tl.load(row + 8)
    if ALIGNED:
        packed = tl.multiple_of(packed, 16)
        count = tl.multiple_of(count, 32)
    # A byte holds two weights, the first in its high half; BLOCK_SIZE weights share an absolute maximum, which is a
    # byte itself where it was quantised a second time.
    byte = (program - first_program) * BYTES + tl.arange(0, BYTES)
    inside = byte < count // 2
    pair = tl.load(packed + byte, mask=inside, other=0).to(tl.int32)
    block = byte // (BLOCK_SIZE // 2)
    if NESTED:
        absmax = tl.load(row + 1).to(tl.pointer_type(tl.uint8))
        level = tl.load(absmax + block, mask=inside, other=0).to(tl.int32)
        scale = tl.load(absmax_code + level)
        scale *= tl.load(absmax_scale + block // NESTED_BLOCK_SIZE, mask=inside, other=0.0)
        scale += tl.load(tl.load(row + 4).to(tl.pointer_type(tl.float32)))
    else:
        scale = tl.load(absmax_scale + block, mask=inside, other=0.0)
    # Rounded first to the dtype that the weight was quantised from, as bitsandbytes does.
    high = (tl.load(code + (pair >> 4)) * scale).to(ROUNDED).to(out.dtype.element_ty)
    low = (tl.load(code + (pair & 15)) * scale).to(ROUNDED).to(out.dtype.element_ty)
    place = (program - first_program) * (2 * BYTES) + tl.arange(0, 2 * BYTES)
    target = out + (begin + place // WIDTH) * STRIDE + place % WIDTH
    tl.store(target, tl.interleave(high, low), mask=place < count)


@triton.jit
def _gather_rows(table, ids, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    source = table + tl.load(ids + row).to(tl.int64) * width
    tl.store(out + row * width + column, tl.load(source + column, mask=inside), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, columns: int = 0) -> tuple[Tensor, Tensor]:
    """See `plain.rms_norm`."""
    rows, width = x.shape
    out = torch.empty((rows, width + columns), dtype=x.dtype, device=x.device)
    rstd = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(width)
    _rms_norm[(rows,)](x, weight, out, rstd, width, x.stride(0), width + columns, eps, BLOCK=block, num_warps=_warps(block))
    return out, rstd


def rms_norm_backward(gradient: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, add: Tensor | None = None) -> Tensor:
    """See `plain.rms_norm_backward`; overwrites `gradient`."""
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    _rms_norm_backward[(rows,)](
        gradient, x, weight, rstd, x if add is None else add, gradient, width, x.stride(0),
        0 if add is None else add.stride(0), WITH_ADD=add is not None, BLOCK=block, num_warps=_warps(block),
    )  # fmt: skip
    return gradient


def rotate(source: Tensor, target: Tensor, cos: Tensor, sin: Tensor, *, backward: bool = False) -> None:
    """See `plain.rotate`. Heads lie side by side in memory, half of head_dim a power of two."""
    tokens, heads, head_dim = source.shape
    _rotate[(tokens,)](
        source, target, cos, sin, heads, source.stride(0), target.stride(0), cos.stride(0), -1.0 if backward else 1.0,
        HEADS=triton.next_power_of_2(heads), HALF=head_dim // 2, num_warps=4,
    )  # fmt: skip


def swiglu(gate_up: Tensor, *, columns: int = 0) -> Tensor:
    """See `plain.swiglu`."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty((rows, width + columns), dtype=gate_up.dtype, device=gate_up.device)
    _swiglu[(rows, triton.cdiv(width, _TILE))](gate_up, out, width, width + columns, BLOCK=_TILE, num_warps=4)
    return out


def swiglu_backward(gate_up: Tensor, gradient: Tensor) -> Tensor:
    """See `plain.swiglu_backward`; the output takes the place of `gradient`."""
    rows, width = gradient.shape
    _swiglu_backward[(rows, triton.cdiv(width, _TILE))](gate_up, gradient, width, BLOCK=_TILE, num_warps=4)
    return gradient


def cross_entropy(logits: Tensor, labels: Tensor, *, with_gradient: bool) -> Tensor:
    """See `plain.cross_entropy`."""
    rows, width = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    block = min(8192, triton.next_power_of_2(width))
    if rows:
        _cross_entropy[(rows,)](
            logits, labels, losses, WIDTH=width, WITH_GRADIENT=with_gradient, BLOCK=block, num_warps=_warps(block)
        )
    return losses


class PackedWeights:
    """NF4 weights of bitsandbytes that are dequantised together, in one launch, one behind the other."""

    def __init__(self, weights: Sequence[Tensor], states: Sequence[Any]) -> None:
        """`weights` are packed, `states` their `QuantState`s; all alike but for their sizes. They must stay in place."""
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
        _dequantize_nf4[(self.programs,)](
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
    _gather_rows[(len(flat), triton.cdiv(width, _TILE))](table, flat, out, width, BLOCK=_TILE, num_warps=4)
    return out.view(*ids.shape, width)


def _warps(block: int) -> int:
    return max(4, min(16, block // 512))
