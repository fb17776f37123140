"""A run on one, two and four processes on CPUs: one result, one writer, one end, and a run that goes on with fewer."""

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

PREDICTIONS = ("baseline", "controls/few_shot", "controls/retrieval")


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same run by 1, 2 and 4 processes."""
    folder = tmp_path_factory.mktemp("several")
    file = recipe(tiny, folder, controls=("few_shot", "retrieval", "tuned_retrieval"))
    for processes in (1, 2, 4):
        done = medtune(processes, "run", file, "--run-dir", folder / str(processes))
        for other in done[1:]:
            assert (other.stdout, other.stderr) == ("", "")  # one prints
    return {processes: folder / str(processes) for processes in (1, 2, 4)}


@pytest.mark.parametrize("processes", [2, 4])
def test_they_train_as_one(runs: dict[int, Path], processes: int) -> None:
    assert_trained_alike(runs[1], runs[processes])


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("system", PREDICTIONS)
def test_the_same_model_answers_and_scores_to_the_byte(runs: dict[int, Path], processes: int, system: str) -> None:
    for name in ("predictions.jsonl", "scores.json"):
        assert (runs[processes] / system / name).read_bytes() == (runs[1] / system / name).read_bytes()


@pytest.mark.parametrize("processes", [2, 4])
def test_the_same_adapter_answers_to_the_byte(runs: dict[int, Path], tmp_path: Path, processes: int) -> None:
    again = shutil.copytree(runs[1], tmp_path / "run")
    (again / "tuned/predictions.jsonl").unlink()
    medtune(processes, "evaluate", again, "--model", "tuned")
    for name in ("tuned/predictions.jsonl", "controls/tuned_retrieval/predictions.jsonl", "tuned/scores.json"):
        assert (again / name).read_bytes() == (runs[1] / name).read_bytes()


def test_files_are_those_of_one_process(runs: dict[int, Path]) -> None:
    def files(run: Path) -> set[str]:
        return {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}

    assert files(runs[4]) == files(runs[1]) | {"launch.json"}
    assert json.loads((runs[4] / "launch.json").read_text()) == {"status": 0, "processes": 4}


def test_a_signal_stops_all_and_fewer_go_on_as_if_nothing_had_been(tiny: Tiny, tmp_path: Path) -> None:
    file = recipe(tiny, tmp_path, max_steps=20, checkpoint_steps=8)
    medtune(1, "run", file, "--run-dir", tmp_path / "whole")
    run = tmp_path / "stopped"
    started = start(4, "medtune", "run", file, "--run-dir", run)
    wait_for(lambda: logged(run) >= 10)
    for process in started:
        process.send_signal(signal.SIGTERM)
    done = finish(started)
    assert [one.returncode for one in done] == [75] * 4
    assert done[0].stderr.splitlines()[-1].startswith("medtune: interrupted (SIGTERM); go on with `medtune run ")
    assert json.loads((run / "launch.json").read_text())["status"] == 75
    medtune(2, "run", file, "--run-dir", run, "--resume")
    whole, resumed = history(tmp_path / "whole"), history(run)
    assert resumed["tokens"] == whole["tokens"]  # the same rows in the same order
    assert resumed["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    assert resumed["validation_loss"] == pytest.approx(whole["validation_loss"], rel=1e-4)


@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_process_ends_the_others_soon(tiny: Tiny, tmp_path: Path, who: int) -> None:
    """Without a launcher that would tell them. The run goes on then."""
    file, run = recipe(tiny, tmp_path, max_steps=300, checkpoint_steps=100), tmp_path / "run"
    started = start(2, "medtune", "train", run) if run.exists() else start(2, "medtune", "run", file, "--run-dir", run)
    wait_for(lambda: logged(run) >= 5)
    began = time.monotonic()
    started[who].kill()
    done = finish(started)
    assert time.monotonic() - began < 60
    assert done[who].returncode == -signal.SIGKILL
    assert done[1 - who].returncode == 1
    if who == 1:
        assert done[0].stderr.splitlines()[-1] == "medtune: another process of the launch has ended"
    assert not (run / "adapter").exists()


def test_answers_so_far_are_kept_by_whoever_wrote_them(tiny: Tiny, tmp_path: Path) -> None:
    """Three processes are stopped in the baseline, and two go on: nothing is answered again."""
    file, run = recipe(tiny, tmp_path), tmp_path / "run"
    started = start(3, "medtune", "run", file, "--run-dir", run)
    partial = [run / "baseline" / name for name in ("partial.jsonl", "partial.1.jsonl", "partial.2.jsonl")]
    wait_for(lambda: all(one.is_file() and one.read_text().count("\n") > 1 for one in partial))
    for process in started:
        process.kill()
    finish(started)
    done = medtune(2, "run", file, "--run-dir", run, "--resume")
    assert "resuming: " in done[0].stderr
    assert not list(run.rglob("partial*"))
    alone = tmp_path / "alone"
    medtune(1, "run", file, "--run-dir", alone)
    assert (run / "baseline/predictions.jsonl").read_bytes() == (alone / "baseline/predictions.jsonl").read_bytes()


HURT = """
import os, resource, runpy, sys

if os.environ["RANK"] == "1":
    if sys.argv.pop(1) == "disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))  # as a disk that fills up
    else:
        from medtune.inference import scoring

        def fail(model, rows):
            raise IndexError("token 99999 of a row is not in the vocabulary")

        scoring.sums_if_they_fit = fail
else:
    del sys.argv[1]
runpy.run_module("medtune", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("disk", 2, "medtune: process 1 of 2: "),
        ("row", 1, "medtune: process 1 of 2: IndexError: token 99999 of a row is not in the vocabulary"),
    ],
)
def test_what_fails_in_one_process_ends_all_and_is_said_once(
    tiny: Tiny, tmp_path: Path, how: str, status: int, line: str
) -> None:
    """A full disk, where the first process has room; a row that one cannot compute."""
    (tmp_path / "hurt.py").write_text(HURT)
    file, run = recipe(tiny, tmp_path), tmp_path / "run"
    began = time.monotonic()
    done = finish(start(2, tmp_path / "hurt.py", how, "run", file, "--run-dir", run))
    assert time.monotonic() - began < 60
    assert [one.returncode for one in done] == [status] * 2
    said = [text for text in done[0].stderr.splitlines() if text.startswith("medtune: ")]
    assert len(said) == 1
    assert said[0].startswith(line)
    if how == "disk":
        assert "partial.1.jsonl" in said[0]
    assert json.loads((run / "launch.json").read_text())["status"] == status
    medtune(2, "run", file, "--run-dir", run, "--resume")
