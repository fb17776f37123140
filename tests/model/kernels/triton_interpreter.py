"""Code that runs Triton kernels in Triton's interpreter, on the CPU: in a process of its own, for Triton asks once."""

import os
import subprocess
import sys

PATCH = """
import torch, triton.runtime.interpreter as interpreter
patch = interpreter._patch_lang_tensor
def patch_index_too(tensor, scope):
    # Triton 3.6 reads a scalar as int(array of one), which NumPy 2.4 refuses; to go once Triton does not.
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())
interpreter._patch_lang_tensor = patch_index_too
"""


def run_interpreted(code):
    """What `code` prints; it may import the modules of this folder. Fails with its errors if it does."""
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    finished = subprocess.run(
        [sys.executable, "-c", PATCH + code],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
