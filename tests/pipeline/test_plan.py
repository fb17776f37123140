"""Plans for GPUs that are not here, from config.json alone: answers, parts that add up, and what is printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from command_line import Medtune, command_runner
from medtune.inference.batch_size import forecast_answers, seconds_to_answer
from medtune.model.quantization import FORMATS
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
    assert " questions, once of 5 times, 3 of them after worked examples; every answer taken" in result.out
