"""A run with packed weights shared out over processes, on CPUs: the same answers, losses, adapter and checkpoints."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from launches import finish, start
from pipeline_launches import assert_trained_alike, history, logged, medtune, recipe, wait_for
from tiny_model import Tiny

pytestmark = pytest.mark.slow  # runs in processes of their own


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run by one process that holds the weights whole, and by two and three that share them out."""
    folder = tmp_path_factory.mktemp("sharded")
    for processes, weights in ((1, "nf4"), (2, "sharded"), (3, "sharded")):
        file = recipe(tiny, folder, weights=weights, controls=("retrieval", "tuned_retrieval"))
        medtune(processes, "run", file, "--run-dir", folder / str(processes))
    return {processes: folder / str(processes) for processes in (1, 2, 3)}


@pytest.mark.parametrize("processes", [2, 3])
def test_losses_and_adapter_are_those_of_whole_weights(runs: dict[int, Path], processes: int) -> None:
    """Processes have unlike numbers of passes, and some steps leave one without rows."""
    assert_trained_alike(runs[1], runs[processes])


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("system", ["baseline", "controls/retrieval"])
def test_the_base_answers_and_scores_to_the_byte(runs: dict[int, Path], processes: int, system: str) -> None:
    for name in ("predictions.jsonl", "scores.json"):
        assert (runs[processes] / system / name).read_bytes() == (runs[1] / system / name).read_bytes()


@pytest.mark.parametrize("processes", [2, 3])
def test_the_same_adapter_answers_to_the_byte(runs: dict[int, Path], tmp_path: Path, processes: int) -> None:
    again = shutil.copytree(runs[processes], tmp_path / "run")
    (again / "tuned/predictions.jsonl").unlink()
    medtune(1, "evaluate", again, "--model", "tuned")
    for name in ("tuned/predictions.jsonl", "controls/tuned_retrieval/predictions.jsonl", "tuned/scores.json"):
        assert (again / name).read_bytes() == (runs[processes] / name).read_bytes()


def test_a_process_that_is_killed_while_it_answers_ends_the_others(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    started = start(2, "medtune", "run", recipe(tiny, tmp_path, weights="sharded"), "--run-dir", run)
    wait_for(lambda: (run / "baseline/partial.1.jsonl").is_file())
    began = time.monotonic()
    started[1].kill()
    done = finish(started)
    assert time.monotonic() - began < 60
    assert (done[0].returncode, done[1].returncode) == (1, -signal.SIGKILL)
    assert done[0].stderr.splitlines()[-1] == "medtune: another process of the launch has ended"


SHARE_HEAD = """
import runpy

from medtune.model import answer_loss

answer_loss.LEAST_BYTES = 1
runpy.run_module("medtune", run_name="__main__", alter_sys=True)
"""


def test_a_head_that_is_shared_out_trains_and_answers_alike(runs: dict[int, Path], tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "share_head.py").write_text(SHARE_HEAD)
    run = tmp_path / "run"
    done = finish(
        start(2, tmp_path / "share_head.py", "run", recipe(tiny, tmp_path, weights="sharded"), "--run-dir", run)
    )
    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert_trained_alike(runs[1], run)
    mine, whole = (
        [json.loads(line) for line in (folder / "baseline/predictions.jsonl").read_text().splitlines()]
        for folder in (run, runs[1])
    )
    for one, other in zip(mine, whole, strict=True):
        assert one.pop("reference_nll") == pytest.approx(other.pop("reference_nll"), rel=1e-5)
        assert one == other


RUN_OUT = """
import os, runpy

import torch

from medtune.model.fused.layers import FusedLayer

backward, calls, is_second = FusedLayer.backward, [], os.environ["RANK"] == "1"


def limited(self, *args, **options):
    calls.append(self)
    if is_second and len(calls) == 4:  # in the second pass of a step
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 228.00 MiB.")
    return backward(self, *args, **options)


FusedLayer.backward = limited
runpy.run_module("medtune", run_name="__main__", alter_sys=True)
"""


def test_a_step_for_which_the_memory_of_one_does_not_suffice_is_made_again_by_all(
    runs: dict[int, Path], tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "run_out.py").write_text(RUN_OUT)
    run = tmp_path / "run"
    medtune(1, "data", "prepare", recipe(tiny, tmp_path, weights="sharded"), "--run-dir", run)
    done = finish(start(2, tmp_path / "run_out.py", "train", run))
    assert [one.returncode for one in done] == [0, 0], done[0].stderr
    assert done[0].stderr.count("memory ran out in another process; from now on ") >= 1
    assert_trained_alike(runs[1], run)


def test_a_stopped_training_goes_on_with_fewer(tiny: Tiny, tmp_path: Path) -> None:
    file = recipe(tiny, tmp_path, weights="sharded", max_steps=20, checkpoint_steps=8)
    for name in ("whole", "stopped"):
        medtune(1, "data", "prepare", file, "--run-dir", tmp_path / name)
    medtune(2, "train", tmp_path / "whole")
    run = tmp_path / "stopped"
    started = start(3, "medtune", "train", run)
    wait_for(lambda: logged(run) >= 9)
    started[-1].send_signal(signal.SIGTERM)  # the others hear of it
    assert [one.returncode for one in finish(started)] == [75] * 3
    assert not (run / "adapter").exists()
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
