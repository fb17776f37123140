"""The Triton kernels of the training step: in the interpreter, through the compiler, and on a GPU."""

from importlib.util import find_spec

import pytest
import torch
from kernel_checks import CHECKS, TOLERANCES, random
from triton_interpreter import run_interpreted

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

# The interpreter cuts bfloat16 off where a GPU rounds it: that dtype is left to the test on a GPU.
INTERPRETED = """
import torch
from kernel_checks import CHECKS
for check in CHECKS:
    for dtype in (torch.float32, torch.float16):
        check("cpu", dtype)
        print(check.__name__, dtype)
"""


@needs_triton
def test_kernels_in_the_interpreter():
    printed = run_interpreted(INTERPRETED)
    assert len(printed.split()) == 2 * 2 * len(CHECKS)


# Each kernel's constants, as LLaMA-3-8B has them; ROUNDED is the dtype itself.
CONSTANTS = {
    "rms_norm_kernel": {"BLOCK": 4096},
    "rms_norm_backward_kernel": {"BLOCK": 4096, "WITH_ADD": True},
    "rotate_kernel": {"HEADS": 64, "HALF": 64},
    "swiglu_kernel": {"BLOCK": 1024},
    "swiglu_backward_kernel": {"BLOCK": 1024},
    "swiglu_backward_low_rank_kernel": {"RANK": 16, "RANK_BLOCK": 16, "ROWS": 16, "BLOCK": 64},
    "cross_entropy_kernel": {"WIDTH": 128256, "WITH_GRADIENT": True, "BLOCK": 8192},
    "dequantize_nf4_kernel": {
        "SEGMENTS": 3, "NESTED": True, "BLOCK_SIZE": 64, "NESTED_BLOCK_SIZE": 256, "BYTES": 1024, "ROUNDED": None,
        "ALIGNED": True, "WIDTH": 4096, "STRIDE": 4160,
    },
    "gather_rows_kernel": {"BLOCK": 1024},
}  # fmt: skip
KINDS = {"rstd_out": "*fp32", "rstd_in": "*fp32", "losses": "*fp32", "labels": "*i64", "ids": "*i64", "eps": "fp32",
         "sign": "fp32"}  # fmt: skip
VALUES = (
    "x",
    "weight",
    "out",
    "gradient",
    "add",
    "gate_up",
    "logits",
    "source",
    "target",
    "cos",
    "sin",
    "table",
    "reduced",
    "down",
)


@needs_triton
@pytest.mark.parametrize(("capability", "dtype"), [(75, "fp16"), (80, "bf16"), (90, "fp32")])
@pytest.mark.parametrize("name", CONSTANTS)
def test_kernels_compile_for_gpus_that_are_not_here(name, capability, dtype, tmp_path, monkeypatch):
    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from medtune.model.kernels import training_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(training_kernels, name)
    constants = dict(CONSTANTS[name])
    kinds = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(VALUES, f"*{dtype}") | KINDS
    if name == "dequantize_nf4_kernel":
        kinds["table"], constants["ROUNDED"] = "*i64", tl.dtype(dtype)
    kinds = {argument: "constexpr" if argument in constants else kinds[argument] for argument in kernel.arg_names}
    places = {(kernel.arg_names.index(argument),): value for argument, value in constants.items()}
    compiled = triton.compile(ASTSource(kernel, kinds, places), target=GPUTarget("cuda", capability, 32))
    assert "ptx" in compiled.asm


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("check", CHECKS)
def test_kernels_on_a_gpu(check, dtype):
    check("cuda", dtype)


@pytest.mark.gpu
def test_rows_are_gathered_from_page_locked_memory():
    from medtune.model.host_store import page_locked
    from medtune.model.kernels.gpu import gather_rows

    table = page_locked((50, 1500), torch.float16)
    table.copy_(random(50, 1500))
    ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(gather_rows(table, ids.cuda()).cpu(), table[ids])
