"""The Triton kernels of the training step as they are launched: in the interpreter, and on a GPU."""

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


@pytest.mark.slow
@needs_triton
def test_kernels_in_the_interpreter():
    printed = run_interpreted(INTERPRETED)
    assert len(printed.split()) == 2 * 2 * len(CHECKS)


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
