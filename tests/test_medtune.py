"""The package itself: its names, and that importing it is cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

import medtune


def test_importing_takes_no_heavy_library():
    code = (
        "import sys, medtune; assert medtune.__version__; medtune.load_recipe; medtune.Run; medtune.Progress;"
        "print([name for name in ('torch', 'transformers', 'pandas', 'datasets', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_names_are_those_of_the_interface():
    from medtune import api

    assert medtune.__all__ == api.__all__
    assert set(medtune.__all__) <= set(dir(medtune))
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        medtune.nosuch  # noqa: B018
