"""What the command sets for its process before anything else is loaded."""

import platform
import subprocess
import sys

import pytest

# A step's activations, asked for and freed ten times over, and how often the kernel had to provide memory for them.
SCRIPT = """
import resource, sys
if sys.argv[1] == "prepared":
    from medtune.process import prepare_process
    prepare_process()
import torch
def step():
    kept = [torch.ones(400_000) for _ in range(20)]
    torch.ones(2_000_000)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_freed_memory_is_used_again():
    faults = {}
    for name in ("as it is", "prepared"):
        done = subprocess.run([sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, check=True)
        faults[name] = int(done.stdout)
    assert faults["prepared"] < faults["as it is"] / 4
