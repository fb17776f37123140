"""bitsandbytes without torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest

from medtune.runtime.light_imports import import_lightly

# In a process of its own: here the libraries are loaded.
PROGRAM = """
import sys
import torch
from medtune.runtime.light_imports import import_lightly

marking, end = torch.compile, {light}
import bitsandbytes
import peft

assert torch.compile is marking
print("torch._inductor.compile_fx" in sys.modules)
before = torch.linspace(-1, 1, 256).reshape(4, 64)
packed, state = bitsandbytes.functional.quantize_4bit(before, quant_type="nf4")
after = bitsandbytes.functional.dequantize_4bit(packed, state)
assert (after - before).abs().max() < 0.2
assert torch.compile(lambda x: x + 1, backend="eager")(before).equal(before + 1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("light", "brings_compiler"), [("import_lightly()", "False"), ("None", "True")])
def test_the_compiler_stays_out(light: str, brings_compiler: str) -> None:
    """The second case tells when bitsandbytes has mended it, and the module is to go."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(light=light)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == brings_compiler


def test_imports_are_as_before_at_the_end() -> None:
    before = list(sys.meta_path)
    end = import_lightly()
    assert sys.meta_path[1:] == before
    end()
    end()
    assert sys.meta_path == before
