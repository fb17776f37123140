"""Checks of the Triton kernels against plain in float64: each takes a device and a dtype.

They run in the interpreter without a GPU, or on one.
"""

import torch

from medtune.model.kernels import plain

TOLERANCES = {torch.float32: 1e-5, torch.float16: 6e-4, torch.bfloat16: 5e-3}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_near(value, expected, dtype):
    """Within what rounding to `dtype` explains, for the whole and for every element."""
    apart = (value.double().cpu() - expected.double().cpu()).abs()
    scale = expected.double().abs().max().cpu()
    assert apart.isfinite().all()
    assert apart.max() <= 2 * TOLERANCES[dtype] * scale, (apart.max() / scale).item()
    assert apart.norm() <= TOLERANCES[dtype] * expected.double().norm().cpu()


def angles(tokens, head_dim):
    turns = random(tokens, head_dim // 2, seed=7) * 3
    return torch.cat([turns, turns], 1).cos(), torch.cat([turns, turns], 1).sin()


def check_rms_norm(device, dtype):
    from medtune.model.kernels import gpu

    for rows, width in ((5, 96), (1, 64), (3, 1), (2, 1030)):
        # A part of wider rows, as a piece of a pack is.
        wide = random(rows, width + 3).to(device, dtype)
        x, weight = wide[:, :width], random(width, seed=1).to(device, dtype)
        expected, expected_rstd = plain.rms_norm(x.double(), weight.double(), 1e-3)
        for room in (0, 24):
            output, rstd = gpu.rms_norm(x, weight, 1e-3, room=room)
            assert (output.shape, output.dtype) == ((rows, width + room), dtype)
            assert (rstd.shape, rstd.dtype) == ((rows, 1), torch.float32)
            assert_near(output[:, :width], expected, dtype)
            assert_near(rstd, expected_rstd, torch.float32)


def check_rms_norm_backward(device, dtype):
    from medtune.model.kernels import gpu

    for rows, width in ((5, 96), (1, 64), (2, 1030)):
        wide = random(rows, 2 * width + 3).to(device, dtype)
        x, add, weight = wide[:, :width], wide[:, width : 2 * width], random(width, seed=1).to(device, dtype)
        # It has room behind it, which stays as it is.
        upstream = random(rows, width + 8, seed=2).to(device, dtype)
        room = upstream[:, width:].clone()
        _, rstd = plain.rms_norm(x.double(), weight.double(), 1e-3)
        for more in (None, add):
            double = None if more is None else more.double()
            incoming = upstream[:, :width].double()
            expected = plain.rms_norm_backward(incoming, x.double(), weight.double(), rstd, double)
            assert expected is incoming
            given = upstream.clone()
            result = gpu.rms_norm_backward(given[:, :width], x, weight, rstd.float(), more)
            assert (result.dtype, result.data_ptr()) == (dtype, given.data_ptr())
            assert_near(result, expected, dtype)
            assert torch.equal(given[:, width:], room)
        assert torch.equal(wide, random(rows, 2 * width + 3).to(device, dtype))


def check_rotation(device, dtype):
    from medtune.model.kernels import gpu

    for heads, head_dim in ((3, 16), (8, 4), (1, 2), (5, 128)):
        cos, sin = (x.to(device, dtype) for x in angles(4, head_dim))
        for backward in (False, True):
            # Query, key and value heads side by side; the value's are not turned.
            joined = random(4, (heads + 2) * head_dim).to(device, dtype)
            before = joined.clone()
            turned = joined[:, : heads * head_dim].unflatten(1, (-1, head_dim))
            expected = turned.double()
            plain.rotate(expected, expected, cos.double(), sin.double(), backward=backward)
            elsewhere = torch.zeros(4, (heads + 3) * head_dim, device=device, dtype=dtype)
            place = elsewhere[:, head_dim : (heads + 1) * head_dim].unflatten(1, (-1, head_dim))
            gpu.rotate(turned, place, cos, sin, backward=backward)
            assert torch.equal(joined, before)
            apart = turned.transpose(0, 1).contiguous().transpose(0, 1)  # head by head
            gpu.rotate(apart, apart, cos, sin, backward=backward)
            assert torch.equal(apart, place)
            gpu.rotate(turned, turned, cos, sin, backward=backward)
            assert torch.equal(turned, place)
            assert_near(turned, expected, dtype)
            assert torch.equal(joined[:, heads * head_dim :], before[:, heads * head_dim :])
            assert not elsewhere[:, :head_dim].any()
            assert not elsewhere[:, (heads + 1) * head_dim :].any()


def check_swiglu(device, dtype):
    from medtune.model.kernels import gpu

    for rows, width, more in ((3, 1500, 4), (2, 1024, 0), (1, 5, 2)):
        wide = (2 * random(rows, 2 * width + more)).to(device, dtype)
        expected = plain.swiglu(wide[:, : 2 * width].double())
        for room in (0, 16):
            output = gpu.swiglu(wide[:, : 2 * width], room=room)
            assert (output.shape, output.dtype) == ((rows, width + room), dtype)
            assert_near(output[:, :width], expected, dtype)


def check_swiglu_backward(device, dtype):
    from medtune.model.kernels import gpu

    # Adapters of ranks that fill a block, that do not, and that are too high for it; more rows than one block has.
    for rows, width, rank in ((3, 1500, 0), (2, 1024, 16), (37, 130, 5), (1, 5, 1), (3, 64, 100)):
        wide = (2 * random(rows, 2 * width + 4)).to(device, dtype)
        gate_up, room = wide[:, : 2 * width], wide[:, 2 * width :].clone()
        upstream = random(rows, width, seed=1).to(device, dtype)
        low_rank, low_rank_double = None, None
        if rank:
            narrow, matrix = random(rows, rank + 3, seed=2)[:, :rank], random(rank, width + 3, seed=3)[:, :width]
            low_rank = narrow.to(device, dtype), (matrix / rank**0.5).to(device, dtype)
            low_rank_double = low_rank[0].double(), low_rank[1].double()
        gradient = gate_up.double()
        again = plain.swiglu_backward(gradient, upstream.double(), low_rank_double)
        output = gpu.swiglu_backward(gate_up, upstream, low_rank)
        assert output is upstream
        assert_near(output, again, dtype)
        assert_near(gate_up, gradient, dtype)
        assert torch.equal(wide[:, 2 * width :], room)


def check_cross_entropy(device, dtype):
    from medtune.model.kernels import gpu

    # Below a block of 8,192, at it, and over one and two by a little.
    for width in (5, 64, 8192, 8193, 16500):
        labels = torch.tensor([0, width - 1, width // 2, min(width - 1, 8191)], device=device)
        logits = (9 * random(4, width)).to(device, dtype)
        logits[3, 0] = 60.0  # the highest comes first, its label later: nothing may overflow
        expected_gradient = logits.double()
        expected = plain.cross_entropy(expected_gradient, labels, with_gradient=True)
        before = logits.clone()
        losses = gpu.cross_entropy(logits, labels, with_gradient=False)
        assert losses.dtype == torch.float32
        assert torch.equal(logits, before)
        assert_near(losses, expected, torch.float32)
        assert torch.equal(gpu.cross_entropy(logits, labels, with_gradient=True), losses)
        assert_near(logits, expected_gradient, dtype)
    assert gpu.cross_entropy(logits[:0], labels[:0], with_gradient=True).shape == (0,)


def check_gather_rows(device, dtype):
    from medtune.model.kernels import gpu

    for width in (1500, 64, 1):
        table = random(7, width).to(device, dtype)
        for ids in (torch.tensor([[3, 3, 0, 6]]), torch.tensor([5]), torch.tensor([[1], [6]])):
            rows = gpu.gather_rows(table, ids.to(device))
            assert torch.equal(rows, table[ids.to(device)])


def nf4_by_definition(packed, state):
    """Each level times the largest magnitude of its block of 64, which is a level times another one where nested."""
    from bitsandbytes.functional import dequantize_blockwise

    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    pair = packed.flatten().long()
    levels = state.code[torch.stack([pair >> 4, pair & 15], 1).flatten()]
    blocks = torch.arange(len(levels), device=packed.device) // state.blocksize
    return (levels * scales[blocks]).to(state.dtype).view(state.shape)


def check_dequantization(device, dtype):
    """The same bits as bitsandbytes' own."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    from medtune.model.kernels.gpu import PackedWeights

    # One to three weights of unlike height; over a program's 2,048 elements, within it, and not whole blocks of 64.
    for width, heights in ((640, (96, 7, 33)), (64, (64, 1)), (96, (5,)), (40, (3, 9, 1)), (1000, (17, 2, 3))):
        for nested in (True, False):
            options = {"blocksize": 64, "compress_statistics": nested, "quant_type": "nf4"}
            values = [random(height, width, seed=height).to(device, dtype) for height in heights]
            pairs = [quantize_4bit(value, **options) for value in values]
            expected = torch.cat([nf4_by_definition(weight, state) for weight, state in pairs])
            # bitsandbytes 0.50 on CPUs takes the wrong scales where rows are half a block too long.
            if device != "cpu" or width != 96:
                assert torch.equal(torch.cat([dequantize_4bit(weight, state) for weight, state in pairs]), expected)
            weights = PackedWeights(*map(list, zip(*pairs, strict=True)))
            wide = torch.full((sum(heights), width + 24), 7.0, dtype=dtype, device=device)
            # Rows that lie further apart than they are wide.
            assert torch.equal(weights.dequantize(wide[:, :width]), expected), (width, heights, nested)
            assert (wide[:, width:] == 7).all()
            assert torch.equal(weights.dequantize(torch.empty_like(expected)), expected)
            # What is computed in may be another dtype than that which was quantised: rounded to that first.
            other = torch.float16 if dtype == torch.float32 else torch.float32
            target = torch.empty_like(expected, dtype=other)
            assert torch.equal(weights.dequantize(target), expected.to(other))


CHECKS = [
    check_rms_norm, check_rms_norm_backward, check_rotation, check_swiglu, check_swiglu_backward, check_cross_entropy,
    check_gather_rows, check_dequantization,
]  # fmt: skip
