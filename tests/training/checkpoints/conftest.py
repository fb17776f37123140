"""A loopback Hub, and the runs that push to it and fetch from it."""

import threading
from pathlib import Path

import pytest
from pushed_checkpoints import TOKEN

from hub_uploads import UploadServer, ask_this_hub
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints import pushing, remote


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(remote, "TRIES", (0.01, 0.01))
    monkeypatch.setattr(pushing, "FIRST_DELAY", 0.05)
    with UploadServer(frozenset({TOKEN})) as server:
        ask_this_hub(monkeypatch, server, tmp_path / "home", TOKEN)
        yield server
    for thread in threading.enumerate():
        if thread.name == "checkpoint-pusher":
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run with all that one holds, rows and predictions too."""
    run = RunDir(tmp_path / "run")
    for name in ("config.yaml", "training/history.jsonl", "checkpoints/plan.json"):
        run.write_text(run.path / name, f"{name} at first\n")
    for name in ("data/train.parquet", "data/dropped.jsonl", "baseline/predictions.jsonl", "provenance.json"):
        run.write_text(run.path / name, "private")
    return run


@pytest.fixture
def fresh(tmp_path: Path) -> RunDir:
    """The run on a machine where nothing stands."""
    return RunDir(tmp_path / "fresh")
