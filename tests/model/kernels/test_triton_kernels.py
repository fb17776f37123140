"""The Triton kernels of the training step go through the compiler for GPUs that are not here."""

from importlib.util import find_spec

import pytest

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


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

    from medtune.model.kernels import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(triton_kernels, name)
    constants = dict(CONSTANTS[name])
    kinds = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(VALUES, f"*{dtype}") | KINDS
    if name == "dequantize_nf4_kernel":
        kinds["table"], constants["ROUNDED"] = "*i64", tl.dtype(dtype)
    kinds = {argument: "constexpr" if argument in constants else kinds[argument] for argument in kernel.arg_names}
    places = {(kernel.arg_names.index(argument),): value for argument, value in constants.items()}
    compiled = triton.compile(ASTSource(kernel, kinds, places), target=GPUTarget("cuda", capability, 32))
    assert "ptx" in compiled.asm
