"""Plans for GPUs that are not here, from config.json alone: answers, parts that add up, and what is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from command_line import Medtune, command_runner
from medtune.inference.batch_size import forecast_answers, seconds_to_answer
from medtune.model.quantization import FORMATS
from medtune.pipeline.plan import forecast, row_sizes
from medtune.pipeline.plan_tables import answer_parts, duration, training_parts
from medtune.runtime.gpus import GPUS
from medtune.training.plan.peaks import GIB
from tiny_model import Tiny, write_rows


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return command_runner(monkeypatch, capsys)


def test_estimated_answers_are_near_those_that_were_measured(llama_on_h200):
    """On an H200: 256 questions of up to 90 tokens, 128 new ones each, took 8.7 ms a question."""
    answers = forecast_answers(
        llama_on_h200.config,
        130 * GIB,
        packed=llama_on_h200.size.packed, width=2, static=True, prompt_and_cap=(90, 128), batch=256,
    )  # fmt: skip
    parameters = 32 * 218_103_808 + 128_256 * 4096
    options = {"parameters": parameters, "storage": llama_on_h200.storage, "rates": (989e12, 4800e9)}
    assert seconds_to_answer(answers, 256, 128, **options) == pytest.approx(256 * 8.7e-3, rel=0.05)
    assert seconds_to_answer(replace(answers, static=False), 256, 128, **options) is None
    # Weights that are not packed are read once a step, as those that were dequantised once are.
    dense, packed = replace(answers, dequantized=1), replace(answers, dequantized=0)
    assert seconds_to_answer(packed, 1, 128, **options) > 2 * seconds_to_answer(dense, 1, 128, **options)
    options["storage"] = FORMATS["none"]
    assert seconds_to_answer(packed, 1, 128, **options) == seconds_to_answer(dense, 1, 128, **options)


def test_the_waterfall_adds_up(llama_config, llama_folder):
    found = forecast(llama_config, llama_folder, GPUS["t4"], row_sizes(llama_config))
    assert found.model.dtype == "float16"
    assert sum(training_parts(found).values()) == pytest.approx(found.step.plan.peak_bytes, rel=1e-6)
    assert found.step.plan.peak_bytes <= found.step.plan.limit_bytes <= 14.56 * GIB
    assert sum(answer_parts(found).values()) < 14.56 * GIB
    assert found.training_seconds is None  # the rows were not read
    assert found.step.tokens_per_second == pytest.approx(1000, rel=0.3)


def test_rows_that_are_here_are_read(tiny: Tiny, tmp_path, medtune):
    rows = write_rows(tmp_path / "rows.csv")
    result = medtune(
        "plan", "demo", "--gpu", "l4", "--set", f"model.base={tiny.path}", "--set", f"data.source={rows}",
        "--set", "data.split.method=random", "--set", "training.max_length=128",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert "training rows of " in result.out
    assert "training time, an estimate: 0 s" in result.out
    assert "answers' time, an estimate" in result.out


def test_one_gpu_is_told_part_by_part(llama_folder, medtune):
    result = medtune("plan", "llama3-8b-t4", "--gpu", "t4", "--set", f"model.base={llama_folder}")
    assert result.status == 0, result.err
    for text in ("upper bound", "training step: passes of", "weights of the layers (NF4)", "estimate", "53%"):
        assert text in result.out


def test_all_gpus_side_by_side(llama_folder, medtune, monkeypatch):
    from medtune.runtime import gpus

    monkeypatch.setattr(gpus, "this_gpu", lambda: None)
    result = medtune("plan", "llama3-8b-t4", "--set", f"model.base={llama_folder}", "--set", "model.quantization=none")
    assert result.status == 0, result.err
    lines = {line.split()[0]: line.split() for line in result.out.splitlines() if line[:1].isalnum()}
    assert [lines[name][1] for name in GPUS] == ["no", "yes", "yes", "yes", "yes", "yes"]
    assert "t4: training does not fit: the smallest plan takes" in result.out


def test_bad_gpus_and_what_does_not_fit(llama_folder, medtune):
    for gpu, text in (("rtx", "--gpu rtx: unknown"), ("4", "training does not fit")):
        result = medtune("plan", "llama3-8b-t4", "--gpu", gpu, "--set", f"model.base={llama_folder}")
        assert result.status == 2
        assert text in result.err


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
