"""Plans as tables: parts that add up, and what is printed for one GPU and for several."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Medtune, command_runner
from medtune.config.recipes import load_recipe
from medtune.config.schema import Config
from medtune.pipeline.plan import forecast, forecasts, row_sizes
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


def test_a_model_larger_than_a_gpu_is_shared_out_over_two(medtune):
    result = medtune("plan", "llama3-70b-2x24gb", "--gpu", "23.5", "--gpus", "2")
    assert result.status == 0, result.err
    for text in (
        "each of 2 GPUs: a GPU of 23.5 GiB",
        "weights: shared out (as asked for, over 2 processes)",
        "the packed weights of the layers and the head: a GPU holds 1/2 of each",
        "embeddings wait in host memory",
        "host memory while the model is loaded: 1.96 GiB a process at most",
        "parts of all layers, and two layers (NF4)",
        "part of the embeddings and head, input embeddings in host memory",
        "answers' time: no estimate; every step gathers all weights",
    ):
        assert text in result.out
    found = forecasts(load_recipe("llama3-70b-2x24gb"), "23.5", 2)[0]["23.5"]
    assert sum(training_parts(found).values()) == pytest.approx(found.step.plan.peak_bytes, rel=1e-6)
    assert sum(answer_parts(found).values()) < 23.5 * GIB
    assert found.answers.batch > 4
    # As the recipe's comment says, of both processes: embeddings, and inputs of layers.
    plan = found.step.plan
    waiting = plan.offloaded_layers * plan.tokens_per_micro_batch * 8192 * 2
    assert 2 * (128_256 * 8192 * 2 + waiting) < 8.0e9
    alone = medtune("plan", "llama3-70b-2x24gb", "--gpu", "23.5")
    assert alone.status == 2
    assert "training does not fit: the smallest plan takes" in alone.err


def test_several_gpus_share_the_rows_of_a_step(config, folder):
    one, two = (row_sizes(config, processes) for processes in (1, 2))
    assert two.largest_step == one.largest_step / 2
    alone, each = (forecast(config, folder, GPUS["l4"], rows) for rows in (one, two))
    assert each.model.processes == 1
    assert each.sharing.value == "whole"
    assert each.training_seconds == pytest.approx(alone.training_seconds / 2, rel=0.1)
    assert each.answer_seconds < 0.7 * alone.answer_seconds


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


def test_nothing_is_predicted_of_vllm(folder, medtune):
    settings = ("model.quantization=none", "generation.engine=vllm", f"model.base={folder}")
    result = medtune("plan", "llama3-8b-t4", "--gpu", "80", *(word for one in settings for word in ("--set", one)))
    assert result.status == 0, result.err
    assert "answers' memory and time: no estimate; vLLM takes most of the GPU, and sets its own pace" in result.out
    assert "Training, GiB at the peak" in result.out
    assert "Answers, " not in result.out


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
