"""Calls in a process that lives on: locks, signals, memory, progress, and what is shown."""

from __future__ import annotations

import gc
import os
import signal
import warnings
from pathlib import Path

import pytest

import medtune
from medtune.errors import ConfigError, RunDirError
from medtune.run_dir.lock import locked_folders


def models_in_memory() -> int:
    from transformers import LlamaForCausalLM

    gc.collect()
    return sum(issubclass(type(thing), LlamaForCausalLM) for thing in gc.get_objects())


class StopError(Exception):
    """What the listeners of these tests raise."""


def test_a_failed_call_frees_models_and_locks_and_can_go_on(workplace: Path):
    before, seen = models_in_memory(), []

    def stop(progress: medtune.Progress) -> None:
        seen.append(progress)
        if progress.work == "Training" and progress.done == 2:
            assert models_in_memory() > before
            raise StopError

    with pytest.raises(StopError) as kept:  # with its frames, as a notebook keeps it
        medtune.run("demo", "runs/failed", progress=stop)
    assert models_in_memory() == before
    assert kept.value.__traceback__ is not None
    assert locked_folders() == []
    assert [p.stage for p in seen if not p.work and p.done] == ["data", "baseline", "controls"]
    assert seen[-1] == medtune.Progress("train", "Training", 2, 3, "steps", seen[-1].note)
    assert "tok/s" in seen[-1].note
    answered = [p.done for p in seen if (p.stage, p.work) == ("baseline", "Answering questions")]
    assert (answered[0], answered[-1]) == (0, 8)
    events: list[medtune.Progress] = []
    with pytest.raises(medtune.MedtuneError, match="not empty"):
        medtune.run("demo", "runs/failed")
    with pytest.warns(UserWarning, match="deprecated in days"):  # noqa: PT031
        run = medtune.run("demo", "runs/failed", resume=True, progress=events.append)
        warnings.warn("deprecated in days", UserWarning, stacklevel=1)
    assert "compare" in run.stages
    assert events[0] == medtune.Progress("data", "", 1, 1, "stages", "complete, skipped")
    assert models_in_memory() == before


def test_a_signal_stops_where_the_run_can_go_on(workplace: Path):
    handler = signal.getsignal(signal.SIGINT)

    def stop(progress: medtune.Progress) -> None:
        if progress.work == "Training" and progress.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    run = medtune.prepare("demo", "runs/stopped")
    with pytest.raises(KeyboardInterrupt, match="resume=True") as stopped:
        medtune.train(run, progress=stop)
    assert isinstance(stopped.value, medtune.RunInterrupted)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in (run.path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-1"]
    first: list[int] = []
    medtune.train(run, resume=True, progress=lambda p: first.append(p.done) if p.work == "Training" else None)
    assert first[0] == 1
    assert run.stages == ("data", "train")


def test_another_process_in_the_directory_is_refused(finished: medtune.Run):
    from filelock import FileLock

    with FileLock(finished.path / ".lock"), pytest.raises(RunDirError, match="another medtune process"):
        medtune.compare(finished)
    assert medtune.compare(finished).rows


ROW = {"id": 1, "reference": "Gout hurts.", "prediction": "<b>Gout</b> hurts."}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: medtune.run(medtune.load_recipe("demo")), "give run_dir"),
        (lambda: medtune.load_recipe("demo", {"training.nosuch": 1}), "nosuch"),
        (lambda: medtune.load_recipe("demo", {"": 1}), "key.path=value"),
        (lambda: medtune.load_run("runs/nowhere"), "not a medtune run"),
        (lambda: medtune.evaluate("runs/demo", "nosuch"), "baseline, controls or tuned"),
        (lambda: medtune.compare([ROW]), "give a second"),
        (lambda: medtune.compare("rows.csv"), "give a second"),
        (lambda: medtune.compare("runs/demo", metrics=["bleu"]), "two sets"),
        (lambda: medtune.compare("runs/demo", resamples=1000), "resamples, .* and names go with two sets"),
        (lambda: medtune.compare([ROW], [ROW], names=("a",)), "must be two texts"),
        (lambda: medtune.compare([ROW], [ROW], names="ab"), "must be two texts"),
        (
            lambda: medtune.compare([ROW], [ROW], resamples=0),
            "resamples 0: must be a whole number from 200 to 100,000",
        ),
        (lambda: medtune.score([ROW], resamples=-5), "resamples -5: must be a whole number"),
        (lambda: medtune.score([ROW], resamples=10**9), "resamples 1000000000: must be"),
        (lambda: medtune.score([ROW], resamples="many"), "resamples 'many': must be"),
        (lambda: medtune.score([1]), "row 1: int is no row"),
        (lambda: medtune.score(5), "int is no table"),
        (lambda: medtune.score([{"id": 1}]), "no reference"),
        (lambda: medtune.doctor(overrides={"lora.rank": 8}), "name one"),
        (lambda: medtune.plan("demo", "t5"), "t5"),
    ],
)
def test_mistakes_are_told(workplace: Path, call, words: str):
    with pytest.raises(medtune.MedtuneError, match=words):
        call()


def test_the_doctor_takes_a_config_too(workplace: Path):
    found = medtune.doctor(medtune.load_recipe("demo"), overrides={"training.optimizer": "nosuch"})
    assert any("nosuch" in finding.reason for finding in found.failures)


def test_overrides_reach_a_config_too(workplace: Path):
    config = medtune.load_recipe(Path("demo.yaml"), {"data": {"source": workplace / "rows.csv"}})
    assert config.data.source == str(workplace / "rows.csv")
    with pytest.raises(ConfigError, match="rank"):
        medtune.prepare(config, "runs/none", overrides={"lora.rank": "many"})
    assert not Path("runs/none").exists()
