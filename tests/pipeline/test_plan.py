"""Plans for GPUs that are not here, from config.json alone: sizes, peaks that were measured, and what is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import Medtune, command_runner
from medtune.config.recipes import load_recipe
from medtune.config.schema import Config
from medtune.inference.forecast import forecast_answers, seconds_to_answer
from medtune.model.quantization import storage_format
from medtune.pipeline.plan import forecast, row_sizes
from medtune.pipeline.plan_tables import answer_parts, duration, training_parts
from medtune.runtime.gpus import GPUS
from medtune.training.plan.forecast import DescribedModel, describe_model, tokens_per_second
from medtune.training.plan.peaks import GIB, Machine, TrainingPlan, peak_parts
from tiny_model import Tiny, write_rows

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with config.json and nothing else."""
    path = tmp_path_factory.mktemp("llama-3-8b")
    (path / "config.json").write_text(json.dumps(LLAMA_3_8B), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return load_recipe("llama3-8b-t4", [f"model.base={folder}"])


@pytest.fixture(scope="module")
def model(config: Config, folder: Path) -> DescribedModel:
    return describe_model(config, folder, GPUS["h200"], "bfloat16")


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Medtune:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return command_runner(monkeypatch, capsys)


def test_sizes_are_those_of_the_loaded_model(model):
    """5.467 GiB is what torch had allocated with LLaMA-3-8B's shape in NF4 and its adapter loaded."""
    assert model.size.total / GIB == pytest.approx(5.467, abs=0.005)
    assert model.size.packed == 32 * 218_103_808
    shape = model.shape
    assert (shape.adapter_parameters, shape.largest_group, shape.room_parameters) == (
        41_943_040, 119_408_640, 3_382_272,
    )  # fmt: skip
    assert (shape.fused, shape.spread, shape.embedding_bytes) == (True, 0, 1_050_673_152)


def test_other_gpus_and_weights_have_other_shapes(config, folder):
    old = describe_model(config, folder, GPUS["t4"], "float16")
    assert old.shape.spread == 3 * 4096
    plain = config.model_copy(update={"model": config.model.model_copy(update={"quantization": "none"})})
    dense = describe_model(plain, folder, GPUS["h200"], "bfloat16")
    assert dense.size.packed == dense.shape.packed_layer_parameters == 0
    # 8,030,261,248 parameters in 16 bit, and the adapter in 32.
    assert dense.size.total == 2 * 8_030_261_248 + 4 * 41_943_040


# Peaks of whole trainings and single passes on an H100 and an H200 (docs/performance.md): tokens a pass, layers
# computed again, in host memory, weights, embeddings, optimiser, peak in GiB. Single passes have no optimiser state.
NONE, ADAMW = "paged_adamw_8bit", "adamw_torch_fused"
MEASURED = [
    (4096, 32, 0, "nf4", "device", NONE, 7.366),
    (1178, 32, 0, "nf4", "host", NONE, 5.349),
    (6144, 32, 0, "nf4", "host", NONE, 7.122),
    (4096, 32, 32, "nf4", "host", NONE, 5.450),
    (8192, 32, 32, "nf4", "host", NONE, 6.015),
    (4096, 0, 0, "nf4", "device", NONE, 17.562),
    (4096, 16, 0, "nf4", "host", NONE, 11.311),
    (4096, 0, 0, "dequantized", "host", NONE, 29.513),
    (8192, 0, 0, "dequantized", "host", NONE, 41.147),
    (16_384, 0, 0, "dequantized", "host", NONE, 64.439),
    (8192, 21, 16, "nf4", "host", ADAMW, 13.65),
    (4032, 8, 5, "nf4", "host", ADAMW, 13.58),
    (22_464, 0, 0, "dequantized", "device", ADAMW, 83.19),
    (40_960, 31, 25, "nf4", "host", ADAMW, 11.93),
    (11_712, 31, 29, "nf4", "host", ADAMW, 6.41),
    (11_712, 31, 26, "nf4", "host", ADAMW, 6.72),
    (4032, 9, 5, "nf4", "host", ADAMW, 13.23),
    (4032, 9, 3, "nf4", "host", ADAMW, 13.29),
    (4032, 12, 10, "nf4", "host", ADAMW, 12.12),
    (8192, 21, 19, "nf4", "host", ADAMW, 13.46),
    (1178, 32, 32, "nf4", "host", NONE, 5.12),
    (20_736, 0, 0, "dequantized", "device", ADAMW, 77.94),
    (40_960, 31, 24, "nf4", "device", ADAMW, 13.22),
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(map(str, row[:5])))
def test_peaks_from_a_configuration_are_those_that_were_measured(row, model):
    tokens, again, offloaded, weights, embeddings, optimizer, peak = row
    plan = TrainingPlan(tokens, 32, again, offloaded, weights, embeddings, optimizer, True)
    predicted = peak_parts(model.shape, Machine(model.size.total, 0, 0), plan).total / GIB
    assert predicted == pytest.approx(peak, rel=0.05)
    assert predicted > 0.98 * peak


def test_estimated_rates_are_near_those_that_were_measured(model):
    """On an H200: 64 rows at once, and under a T4's memory."""
    roomy = TrainingPlan(18_432, 32, 0, 0, "dequantized", "device", ADAMW, True)
    assert tokens_per_second(model.shape, roomy, 989e12) == pytest.approx(17_534, rel=0.05)
    tight = TrainingPlan(3_970, 32, 8, 0, "nf4", "host", ADAMW, True)
    assert tokens_per_second(model.shape, tight, 989e12) == pytest.approx(12_615, rel=0.25)
    assert tokens_per_second(model.shape, roomy, None) is None


def test_estimated_answers_are_near_those_that_were_measured(model):
    """On an H200: 256 questions of up to 90 tokens, 128 new ones each, took 8.7 ms a question."""
    answers = forecast_answers(
        model.config,
        130 * GIB,
        packed=model.size.packed, width=2, static=True, prompt_and_cap=(90, 128), batch=256,
    )  # fmt: skip
    parameters = 32 * 218_103_808 + 128_256 * 4096
    options = {"parameters": parameters, "storage": model.storage, "rates": (989e12, 4800e9)}
    assert seconds_to_answer(answers, 256, 128, **options) == pytest.approx(256 * 8.7e-3, rel=0.05)
    assert seconds_to_answer(replace(answers, static=False), 256, 128, **options) is None
    # Weights that are not packed are read once a step, as those that were dequantised once are.
    dense, packed = replace(answers, dequantized=1), replace(answers, dequantized=0)
    assert seconds_to_answer(packed, 1, 128, **options) > 2 * seconds_to_answer(dense, 1, 128, **options)
    options["storage"] = storage_format("none")
    assert seconds_to_answer(packed, 1, 128, **options) == seconds_to_answer(dense, 1, 128, **options)


def test_the_waterfall_adds_up(config, folder):
    found = forecast(config, folder, GPUS["t4"], row_sizes(config))
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


def test_one_gpu_is_told_part_by_part(folder, medtune):
    result = medtune("plan", "llama3-8b-t4", "--gpu", "t4", "--set", f"model.base={folder}")
    assert result.status == 0, result.err
    for text in ("upper bound", "training step: passes of", "weights of the layers (NF4)", "estimate", "53%"):
        assert text in result.out


def test_all_gpus_side_by_side(folder, medtune, monkeypatch):
    from medtune.runtime import gpus

    monkeypatch.setattr(gpus, "this_gpu", lambda: None)
    result = medtune("plan", "llama3-8b-t4", "--set", f"model.base={folder}", "--set", "model.quantization=none")
    assert result.status == 0, result.err
    lines = {line.split()[0]: line.split() for line in result.out.splitlines() if line[:1].isalnum()}
    assert [lines[name][1] for name in GPUS] == ["no", "yes", "yes", "yes", "yes", "yes"]
    assert "t4: training does not fit: the smallest plan takes" in result.out


def test_bad_gpus_and_what_does_not_fit(folder, medtune):
    for gpu, text in (("rtx", "--gpu rtx: unknown"), ("4", "training does not fit")):
        result = medtune("plan", "llama3-8b-t4", "--gpu", gpu, "--set", f"model.base={folder}")
        assert result.status == 2
        assert text in result.err


@pytest.mark.parametrize(("seconds", "text"), [(3.2, "3 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
