"""Attention of one token a row to a static cache: plain against its definition, the Triton kernel against plain."""

from importlib.util import find_spec

import pytest
import torch
from triton_interpreter import run_interpreted

from medtune.model.kernels.decode_attention import DecodeSpan, attend_last_token

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
# heads, key heads, head_dim, positions, filled: groups of 1, 4 and 3; lengths within, at and over a block.
SHAPES = [(4, 4, 16, 40, 33), (8, 2, 32, 300, 257), (9, 3, 64, 130, 1), (4, 1, 64, 128, 128), (2, 1, 256, 100, 65)]


def case(shape, dtype=torch.float32, device="cpu"):
    """Query, keys, values and span of three rows: from the first position, from the middle, and of one token."""
    heads, key_heads, head_dim, positions, filled = shape
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 1, heads, head_dim, generator=generator).transpose(1, 2).squeeze(2)
    # The first rows of larger buffers, as a step has them.
    keys, values = (torch.randn(5, key_heads, positions, head_dim, generator=generator)[:3] for _ in range(2))
    starts = [0, filled // 3, filled - 1]
    for row, start in enumerate(starts):
        for buffer in (keys, values):
            buffer[row, :, :start] = buffer[row, :, filled:] = float("nan")
    span = DecodeSpan(torch.tensor(starts, dtype=torch.int32), torch.tensor([filled], dtype=torch.int32))
    return (
        *(x.to(device, dtype) for x in (query, keys, values)),
        DecodeSpan(span.start.to(device), span.length.to(device)),
    )


def by_definition(query, keys, values, span, scaling):
    rows = []
    for row, start in enumerate(span.start.tolist()):
        read = slice(start, int(span.length))
        groups = query.shape[1] // keys.shape[1]
        k, v = (x[row, :, read].double().repeat_interleave(groups, 0) for x in (keys, values))
        scores = torch.einsum("hd,hpd->hp", query[row].double(), k) * scaling
        rows.append(torch.einsum("hp,hpd->hd", scores.softmax(-1), v))
    return torch.stack(rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_form_follows_the_definition(shape):
    query, keys, values, span = case(shape)
    output = attend_last_token(query, keys, values, span)
    expected = by_definition(query, keys, values, span, shape[2] ** -0.5)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    scaled = attend_last_token(query.double(), keys.double(), values.double(), span, 0.3)
    torch.testing.assert_close(scaled, by_definition(query, keys, values, span, 0.3), atol=1e-12, rtol=1e-12)


INTERPRETED = """
import torch
from test_decode_attention import SHAPES, by_definition, case
from medtune.model.kernels.decode_attention_kernel import launch
for shape in SHAPES:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
        query, keys, values, span = case(shape, dtype)
        output = launch(query, keys, values, span.start, span.length, 0.3)
        expected = by_definition(query, keys, values, span, 0.3)
        torch.testing.assert_close(output.double(), expected, atol=tolerance, rtol=tolerance)
print("equal")
"""


@needs_triton
def test_kernel_in_the_interpreter():
    printed = run_interpreted(INTERPRETED)
    assert printed.strip() == "equal"


@needs_triton
@pytest.mark.parametrize(("capability", "dtype", "head_dim"), [(80, "bf16", 128), (90, "fp32", 256), (90, "fp16", 16)])
def test_kernel_compiles_for_gpus_that_are_not_here(capability, dtype, head_dim, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from medtune.model.kernels.decode_attention_kernel import _attend

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    fixed = {"group": 4, "padded_group": 16, "head_dim": head_dim, "block": 16}
    kinds = dict.fromkeys(_attend.arg_names, "i32") | dict.fromkeys(fixed, "constexpr") | {"scale": "fp32"}
    kinds |= dict.fromkeys(("query", "keys", "values", "out"), f"*{dtype}") | dict.fromkeys(("start", "length"), "*i32")
    source = ASTSource(_attend, kinds, {(_attend.arg_names.index(name),): value for name, value in fixed.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert "ptx" in compiled.asm


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)]
)
def test_kernel_on_a_gpu(shape, dtype, tolerance):
    query, keys, values, span = case(shape, dtype, "cuda")
    output = attend_last_token(query, keys, values, span)
    expected = by_definition(query, keys, values, span, shape[2] ** -0.5)
    torch.testing.assert_close(output.double(), expected, atol=tolerance, rtol=tolerance)
