"""`--gpus`: how many processes it asks for, and what comes back of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from medtune.errors import ConfigError
from medtune.runtime import launcher
from medtune.runtime.launcher import count_processes, launch


@pytest.mark.parametrize(
    ("gpus", "wanted", "on_cpu", "count"),
    [(2, "all", False, 2), (2, "1", False, 1), (4, "3", False, 3), (0, "2", True, 2), (8, "all", True, 8)],
)
def test_processes_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, gpus: int, wanted: str, on_cpu: bool, count: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert count_processes(wanted, on_cpu=on_cpu) == count


@pytest.mark.parametrize(
    ("gpus", "wanted", "on_cpu", "line"),
    [
        (2, "3", False, "gpus 3: 2 GPUs are visible; give 2 at most"),
        (2, "3", True, "gpus 3: 2 GPUs are visible; give 2 at most"),
        (0, "all", True, "gpus all: no CUDA GPU is visible; leave --gpus out"),
        (0, "1", False, "gpus 1: no CUDA GPU is visible; leave --gpus out"),
        (2, "0", False, "gpus 0: neither a number nor `all`; give how many GPUs to use"),
        (2, "two", False, "gpus two: neither a number nor `all`; give how many GPUs to use"),
        (2, "-1", False, "gpus -1: neither a number nor `all`; give how many GPUs to use"),
    ],
)
def test_what_cannot_be_had_is_said(
    monkeypatch: pytest.MonkeyPatch, gpus: int, wanted: str, on_cpu: bool, line: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(ConfigError) as error:
        count_processes(wanted, on_cpu=on_cpu)
    assert str(error.value) == f"--{line}"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package `medtune` that is not ours, in the processes that are launched."""
    (tmp_path / "medtune").mkdir()
    (tmp_path / "medtune/__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launcher.sys, "executable", sys.executable)
    return tmp_path / "medtune/__main__.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(0)", 0),
        ("sys.exit(75)", 75),
        ("sys.exit(2 * (rank == 0)) if rank == 0 else time.sleep(30)", 2),
    ],
)
def test_the_status_is_that_of_the_processes(
    program: Path, capfd: pytest.CaptureFixture[str], end: str, status: int
) -> None:
    program.write_text(
        f"import os, sys, time\nrank = int(os.environ['RANK'])\nassert sys.argv[1:] == ['run', 'x']\n{end}\n"
    )
    assert launch(["run", "x"], 2) == status
    assert capfd.readouterr() == ("", "")  # no report of the launcher's own


@pytest.mark.slow
def test_a_killed_process_is_named(program: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program.write_text("import os, time\nos.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else time.sleep(30)\n")
    assert launch(["run"], 2) == 1
    assert capfd.readouterr().err == "medtune: process 1 of 2 was ended by SIGKILL\n"


@pytest.mark.slow
def test_cores_are_shared(program: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(launcher.os, "cpu_count", lambda: 8)
    program.write_text("import os\nprint(os.environ['OMP_NUM_THREADS'])\n")
    assert launch([], 2) == 0
    assert capfd.readouterr().out == "4\n4\n"
