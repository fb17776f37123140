"""A run in processes of its own, as a notebook starts it."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path

import pytest

import medtune
from medtune.errors import MedtuneError
from tiny_model import Tiny, write_rows


@pytest.fixture
def recipe(tiny: Tiny, tmp_path: Path) -> Path:
    values = {
        "model": {"base": str(tiny.path)},
        "data": {"source": str(write_rows(tmp_path / "rows.csv")), "split": {"validation": 0.2, "test": 0.2}},
        "training": {"max_length": 256, "effective_batch_rows": 9, "max_steps": 3, "tokens_per_micro_batch": 100},
        "generation": {"max_new_tokens": 8},
        "evaluation": {"metrics": ["bleu", "rougeL", "perplexity"], "controls": []},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(values))  # JSON is YAML
    return tmp_path / "recipe.yaml"


@pytest.mark.slow
def test_two_processes_do_the_run_and_tell_their_progress(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[medtune.Progress] = []
    run = medtune.run(recipe, tmp_path / "run", gpus=2, on_cpu=True, progress=events.append)
    assert "report" in run.stages
    assert json.loads((run.path / "launch.json").read_text()) == {"status": 0, "processes": 2}
    training = [event for event in events if event.work == "Training"]
    assert [event.done for event in training][-1] == 3
    assert {event.stage for event in events} >= {"data", "baseline", "train", "tuned", "compare", "report"}
    shown = capfd.readouterr()
    assert "── train" in shown.err
    assert shown.out == ""


@pytest.mark.slow
def test_a_problem_comes_as_an_error(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(MedtuneError, match=r"^gpus='all': no CUDA GPU is visible; leave gpus out$"):
        medtune.run(recipe, tmp_path / "run", gpus="all")
    with pytest.raises(MedtuneError, match=r"^gpus=2: no CUDA GPU is visible; leave gpus out$"):
        medtune.run(recipe, tmp_path / "run", gpus=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_stop_button_stops_it_where_it_can_be_resumed(recipe: Path, tmp_path: Path) -> None:
    def stop(progress: medtune.Progress) -> None:
        if progress.work == "Training" and progress.done == 1:
            threading.Timer(0, os.kill, (os.getpid(), signal.SIGINT)).start()

    settings = {"training.max_steps": 200}
    with pytest.raises(medtune.RunInterrupted, match="resume=True"):
        medtune.run(recipe, tmp_path / "run", overrides=settings, gpus=2, on_cpu=True, progress=stop)
    assert list((tmp_path / "run/checkpoints").glob("checkpoint-*"))


@pytest.mark.slow
def test_a_launched_process_launches_none(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    run = medtune.run(recipe, tmp_path / "run", gpus=2, on_cpu=True)
    assert "report" in run.stages
    assert not (run.path / "launch.json").exists()
