"""Attention of one token a row to a static cache against its definition: in plain PyTorch, and by the Triton kernel.

The kernel runs in the interpreter and on a GPU, and goes through the compiler.
"""

from importlib.util import find_spec

import pytest
import torch
from attention_cases import SHAPES, by_definition, case
from triton_interpreter import run_interpreted

from medtune.model.attention import attend_last_token

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

INTERPRETED = """
import torch
from attention_cases import SHAPES, by_definition, case
from medtune.model.kernels.gpu import attend_last_token
for shape in SHAPES:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
        query, keys, values, span = case(shape, dtype)
        output = attend_last_token(query, keys, values, span.start, span.length, 0.3)
        expected = by_definition(query, keys, values, span, 0.3)
        torch.testing.assert_close(output.double(), expected, atol=tolerance, rtol=tolerance)
print("equal")
"""


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_form_follows_the_definition(shape):
    query, keys, values, span = case(shape)
    output = attend_last_token(query, keys, values, span)
    expected = by_definition(query, keys, values, span, shape[2] ** -0.5)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-5)
    scaled = attend_last_token(query.double(), keys.double(), values.double(), span, 0.3)
    torch.testing.assert_close(scaled, by_definition(query, keys, values, span, 0.3), atol=1e-12, rtol=1e-12)


@pytest.mark.slow
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

    from medtune.model.kernels.triton_kernels import decode_attention_kernel as kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    fixed = {"group": 4, "padded_group": 16, "head_dim": head_dim, "block": 16}
    kinds = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(fixed, "constexpr") | {"scale": "fp32"}
    kinds |= dict.fromkeys(("query", "keys", "values", "out"), f"*{dtype}") | dict.fromkeys(("start", "length"), "*i32")
    source = ASTSource(kernel, kinds, {(kernel.arg_names.index(name),): value for name, value in fixed.items()})
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
