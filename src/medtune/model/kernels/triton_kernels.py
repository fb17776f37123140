# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""The Triton kernels that `gpu` launches: their language has no types, and constants are marked `tl.constexpr`."""

import triton
import triton.language as tl


@triton.jit
def rms_norm_kernel(x, weight, out, rstd_out, width, x_stride, out_stride, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    values = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(values * values) / width + eps)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, values * rstd * scale, mask=inside)
    tl.store(rstd_out + row, rstd)


@triton.jit
def rms_norm_backward_kernel(
    gradient, x, weight, rstd_in, add, width, gradient_stride, x_stride, add_stride,
    WITH_ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    rstd = tl.load(rstd_in + row)
    normed = tl.load(x + row * x_stride + column, mask=inside, other=0.0).to(tl.float32) * rstd
    place = gradient + row * gradient_stride + column
    inner = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    inner *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    inner = (inner - normed * (tl.sum(inner * normed) / width)) * rstd
    if WITH_ADD:
        inner += tl.load(add + row * add_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, inner, mask=inside)


@triton.jit
def rotate_kernel(
    source, target, cos, sin, heads, source_stride, source_head, target_stride, target_head, angle_stride, sign,
    HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < HALF)
    place = source + token * source_stride + head * source_head + column
    first = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + token * angle_stride + column).to(tl.float32)
    s = tl.load(sin + token * angle_stride + column).to(tl.float32) * sign
    place = target + token * target_stride + head * target_head + column
    tl.store(place, first * c - second * s, mask=inside)
    tl.store(place + HALF, second * c + first * s, mask=inside)


@triton.jit
def swiglu_kernel(gate_up, out, width, stride, out_stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride + width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, gate * tl.sigmoid(gate) * up, mask=inside)


@triton.jit
def swiglu_backward_kernel(gate_up, gradient, width, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    place = gradient + row * width + column
    incoming = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    _swiglu_gradients(gate_up + row * stride + column, place, incoming, width, inside)


@triton.jit
def swiglu_backward_low_rank_kernel(
    gate_up, gradient, reduced, down, rows, width, stride, reduced_stride, down_stride,
    RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = (row < rows) & (column < width)
    across, along = tl.arange(0, RANK_BLOCK)[None, :], tl.arange(0, RANK_BLOCK)[:, None]
    narrow = tl.load(reduced + row * reduced_stride + across, mask=(row < rows) & (across < RANK), other=0.0)
    wide = tl.load(down + along * down_stride + column, mask=(along < RANK) & (column < width), other=0.0)
    place = gradient + row * width + column
    incoming = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    incoming += tl.dot(narrow, wide, input_precision="ieee")
    _swiglu_gradients(gate_up + row * stride + column, place, incoming, width, inside)


@triton.jit
def _swiglu_gradients(gate_place, place, incoming, width, inside):
    # The gradients of gate and up in their places, and the activation itself in that of its gradient.
    gate = tl.load(gate_place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_place + width, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    activated = gate * sigmoid
    tl.store(gate_place, incoming * up * (sigmoid + activated * (1 - sigmoid)), mask=inside)
    tl.store(gate_place + width, incoming * activated, mask=inside)
    tl.store(place, activated * up, mask=inside)


@triton.jit
def cross_entropy_kernel(logits, labels, losses, WIDTH: tl.constexpr, WITH_GRADIENT: tl.constexpr, BLOCK: tl.constexpr):
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
def dequantize_nf4_kernel(
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
def gather_rows_kernel(table, ids, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    source = table + tl.load(ids + row).to(tl.int64) * width
    tl.store(out + row * width + column, tl.load(source + column, mask=inside), mask=inside)


@triton.jit
def decode_attention_kernel(
    query, keys, values, out, start, length, scale,
    query_row, query_head, key_row, key_head, key_position, value_row, value_head, value_position,
    group: tl.constexpr, padded_group: tl.constexpr, head_dim: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    # One program for a row and key head, and all query heads that share it. A step reads the filled part of the cache
    # once, which is what it costs; the softmax is computed online (Milakov and Gimelshein 2018).
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
