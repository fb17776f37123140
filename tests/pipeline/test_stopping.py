"""Signals, a second process and kill -9: what stands stays, and a resumed run equals one that was not stopped."""

import signal
import time
from pathlib import Path

import pytest

from stopping import batches_answered, finish, results, start, steps_logged, wait_for, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory) -> Path:
    return write_recipe(tiny, tmp_path_factory.mktemp("job"), steps=16)


@pytest.fixture(scope="module")
def uninterrupted(recipe: Path) -> dict[str, object]:
    run = recipe.parent / "uninterrupted"
    status, errors = finish(start("run", recipe, "--run-dir", run))
    assert status == 0, errors
    return results(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_training_told_to_stop_goes_on_as_if_it_had_not(recipe: Path, uninterrupted, tmp_path: Path, number) -> None:
    run = tmp_path / "run"
    process = start("run", recipe, "--run-dir", run)
    wait_for(process, lambda: steps_logged(run) >= 4)
    process.send_signal(number)
    began = time.monotonic()
    status, errors = finish(process)
    assert time.monotonic() - began < 30
    assert status == 75, errors
    assert errors.splitlines()[-1] == (
        f"medtune: interrupted ({number.name}); go on with `medtune run {recipe} --run-dir {run} --resume`"
    )
    assert "Traceback" not in errors
    assert not (run / "adapter").exists()
    assert (run / "checkpoints" / f"checkpoint-{steps_logged(run)}" / "sealed.json").is_file()
    status, errors = finish(start("run", recipe, "--run-dir", run, "--resume"))
    assert status == 0, errors
    assert "training step, as it began: " in errors
    assert results(run) == uninterrupted


@pytest.mark.parametrize("stage", ["data", "baseline", "tuned"])
def test_a_signal_in_another_stage(recipe: Path, uninterrupted, tmp_path: Path, stage: str) -> None:
    run = tmp_path / "run"
    before = {"data": "config.yaml", "baseline": "data/audit.json", "tuned": "adapter/medtune.json"}[stage]
    process = start("run", recipe, "--run-dir", run)
    wait_for(process, (run / before).is_file)
    process.send_signal(signal.SIGTERM)
    status, errors = finish(process, 30)
    assert status == 75, errors
    assert "Traceback" not in errors
    assert (run / before).is_file()
    status, errors = finish(start("run", recipe, "--run-dir", run, "--resume"))
    assert status == 0, errors
    assert results(run) == uninterrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_answers_that_were_written_are_not_written_again(recipe: Path, uninterrupted, tmp_path: Path, number) -> None:
    run = tmp_path / "run"
    process = start("run", recipe, "--run-dir", run)
    wait_for(process, lambda: batches_answered(run, "baseline") >= 1)
    process.send_signal(number)
    status, errors = finish(process, 30)
    assert status == 75, errors
    assert "Traceback" not in errors
    answered = batches_answered(run, "baseline")
    status, errors = finish(start("run", recipe, "--run-dir", run, "--resume"))
    assert status == 0, errors
    assert f"resuming: 8 of 8 rows are scored, {2 * answered} answered" in errors
    assert results(run) == uninterrupted


def test_a_second_process_is_refused_and_a_stale_lock_is_not(recipe: Path, uninterrupted, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("run", recipe, "--run-dir", run)
    wait_for(process, lambda: steps_logged(run) >= 4)
    process.send_signal(signal.SIGSTOP)  # it would be done before the others have started
    again = ("run", recipe, "--run-dir", run)
    for command in (again, (*again, "--resume"), ("train", run, "--resume"), ("evaluate", run, "--model", "tuned")):
        status, errors = finish(start(*command))
        assert status == 2, errors
        assert errors == (
            f"medtune: {run}: another medtune process works in this run directory; wait for it to end, or stop it\n"
        )
    process.kill()
    finish(process)
    assert (run / ".lock").is_file()
    status, errors = finish(start("run", recipe, "--run-dir", run, "--resume"))
    assert status == 0, errors
    assert results(run) == uninterrupted


def test_a_second_signal_ends_at_once(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("run", recipe, "--run-dir", run)
    wait_for(process, lambda: steps_logged(run) >= 1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    status, errors = finish(process, 10)
    assert status in (-signal.SIGINT, -signal.SIGTERM)
    assert "Traceback" not in errors
