"""`make demo`, with a stand-in for medtune: what it says, continues and makes again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"
MEDTUNE = """#!/bin/sh
echo "medtune $*"
mkdir -p runs/demo
touch runs/demo/kept
"""
HINT = 'medtune is in .venv/bin: ". .venv/bin/activate" puts it on the PATH'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and an environment that is installed already."""
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("pyproject.toml", "constraints.txt", ".venv/bin/medtune", ".venv/.installed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "bin" / "medtune").write_text(MEDTUNE)
    (tmp_path / ".venv" / "bin" / "medtune").chmod(0o755)
    return tmp_path


def make_demo(checkout: Path) -> list[str]:
    # Where `make test` runs this, its own make must not look like the outer one's child, which tells its folders.
    apart = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "demo"]
    done = subprocess.run(command, cwd=checkout, env=apart, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_the_demo_goes_on_where_it_was_interrupted_and_is_made_again_where_it_ended(checkout: Path) -> None:
    lines = make_demo(checkout)
    assert lines == [HINT, ".venv/bin/medtune run demo --resume", "medtune run demo --resume", HINT]
    (checkout / "runs" / "demo" / "half").touch()
    make_demo(checkout)
    assert (checkout / "runs" / "demo" / "half").exists()
    (checkout / "runs" / "demo" / "report.html").touch()
    make_demo(checkout)
    assert sorted(file.name for file in (checkout / "runs" / "demo").iterdir()) == ["kept"]


def test_an_installation_says_first_what_it_takes(checkout: Path) -> None:
    (checkout / ".venv" / ".installed").unlink()
    command = ["make", "--dry-run", "PYTHON=python3", ".venv/.installed"]
    shown = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, timeout=60).stdout
    said = shown.index("some minutes and about 3 GB, several more with a CUDA build of torch")
    assert said < shown.index("-m venv")
