"""A command line in a folder of its own, and a run to give it."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Medtune, command_runner
from medtune.run_dir.directory import RunDir
from report_runs import compared_run


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    """Runs a command line in an empty working folder, in this process."""
    monkeypatch.chdir(tmp_path)
    return command_runner(monkeypatch, capsys)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return compared_run(tmp_path / "run")
