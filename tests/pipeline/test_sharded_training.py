"""Training with packed weights shared out over processes, on CPUs: the same losses, adapter and checkpoints."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from launches import finish, start
from pipeline_launches import assert_trained_alike, history, logged, medtune, recipe, wait_for
from tiny_model import Tiny

pytestmark = pytest.mark.slow  # runs in processes of their own


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same training by one process that holds the weights whole, and by two and three that share them out."""
    folder = tmp_path_factory.mktemp("sharded")
    for processes, weights in ((1, "nf4"), (2, "sharded"), (3, "sharded")):
        run = folder / str(processes)
        medtune(1, "data", "prepare", recipe(tiny, folder, weights=weights), "--run-dir", run)
        medtune(processes, "train", run)
    return {processes: folder / str(processes) for processes in (1, 2, 3)}


@pytest.mark.parametrize("processes", [2, 3])
def test_losses_and_adapter_are_those_of_whole_weights(runs: dict[int, Path], processes: int) -> None:
    """Processes have unlike numbers of passes, and some steps leave one without rows."""
    assert_trained_alike(runs[1], runs[processes])


def test_a_stopped_training_goes_on_with_fewer(tiny: Tiny, tmp_path: Path) -> None:
    file = recipe(tiny, tmp_path, weights="sharded", max_steps=20, checkpoint_steps=8)
    for name in ("whole", "stopped"):
        medtune(1, "data", "prepare", file, "--run-dir", tmp_path / name)
    medtune(2, "train", tmp_path / "whole")
    run = tmp_path / "stopped"
    started = start(3, "medtune", "train", run)
    wait_for(lambda: logged(run) >= 9)
    for process in started:
        process.send_signal(signal.SIGTERM)
    assert [one.returncode for one in finish(started)] == [75] * 3
    medtune(2, "train", run, "--resume")
    whole, resumed = history(tmp_path / "whole"), history(run)
    assert resumed["tokens"] == whole["tokens"]
    assert resumed["loss"] == pytest.approx(whole["loss"], rel=1e-4)


def test_one_process_holds_them_whole(runs: dict[int, Path], tiny: Tiny, tmp_path: Path) -> None:
    """A run that was begun on several may end on one."""
    run = tmp_path / "run"
    medtune(1, "data", "prepare", recipe(tiny, tmp_path, weights="sharded"), "--run-dir", run)
    medtune(1, "train", run)
    assert history(run) == history(runs[1])
    plan = json.loads((run / "provenance.json").read_text())["stages"]["train"]["plan"]
    assert plan["weights"] == "nf4"
