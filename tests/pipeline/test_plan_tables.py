"""Plans as tables: parts that add up, and what is printed for one GPU and for several."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Medtune, command_runner
from medtune.config.recipes import load_recipe
from medtune.config.schema import Config
from medtune.pipeline.plan import forecast, row_sizes
from medtune.pipeline.plan_tables import answer_parts, duration, training_parts
from medtune.runtime.gpus import GPUS
from medtune.training.plan.peaks import GIB


@pytest.fixture(scope="module")
def folder(llama_folder: Path) -> Path:
    return llama_folder


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return load_recipe("llama3-8b-t4", [f"model.base={folder}"])


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return command_runner(monkeypatch, capsys)


def test_the_waterfall_adds_up(config, folder):
    found = forecast(config, folder, GPUS["t4"], row_sizes(config))
    assert found.model.dtype == "float16"
    assert sum(training_parts(found).values()) == pytest.approx(found.step.plan.peak_bytes, rel=1e-6)
    assert found.step.plan.peak_bytes <= found.step.plan.limit_bytes <= 14.56 * GIB
    assert sum(answer_parts(found).values()) < 14.56 * GIB
    # MedQuAD's lengths come with the package; of other rows nothing is known.
    assert found.training_seconds == pytest.approx(4_078_356 / found.step.tokens_per_second, rel=0.03)
    others = config.model_copy(update={"data": config.data.model_copy(update={"source": "owner/rows"})})
    assert forecast(others, folder, GPUS["t4"], row_sizes(others)).training_seconds is None
    assert found.step.tokens_per_second == pytest.approx(1000, rel=0.3)


def test_one_gpu_is_told_part_by_part(folder, medtune):
    result = medtune("plan", "llama3-8b-t4", "--gpu", "t4", "--set", f"model.base={folder}")
    assert result.status == 0, result.err
    for text in (
        "upper bound",
        "MedQuAD's lengths as they come with the package",
        "can show: ",
        "training step: passes of",
        "weights of the layers (NF4)",
        "estimate",
        "53%",
    ):
        assert text in result.out


def test_all_gpus_side_by_side(folder, medtune, monkeypatch):
    from medtune.runtime import gpus

    monkeypatch.setattr(gpus, "this_gpu", lambda: None)
    result = medtune("plan", "llama3-8b-t4", "--set", f"model.base={folder}", "--set", "model.quantization=none")
    assert result.status == 0, result.err
    lines = {line.split()[0]: line.split() for line in result.out.splitlines() if line[:1].isalnum()}
    assert [lines[name][1] for name in GPUS] == ["no", "yes", "yes", "yes", "yes", "yes"]
    assert lines["h100"][-1] in ("s", "min", "h")
    assert "for a CPU there is no estimate: a run tells the time that is left" in result.out
    assert "t4: training does not fit: the smallest plan takes" in result.out


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
