"""Sizes, peaks and rates from config.json alone, against those that were measured."""

from __future__ import annotations

import pytest

from medtune.errors import ModelError
from medtune.runtime.gpus import GPUS
from medtune.training.plan.forecast import describe_model, forecast_step, tokens_per_second
from medtune.training.plan.peaks import GIB, Machine, TrainingPlan, peak_parts


def test_sizes_are_those_of_the_loaded_model(llama_on_h200):
    """5.467 GiB is what torch had allocated with LLaMA-3-8B's shape in NF4 and its adapter loaded."""
    assert llama_on_h200.size.total / GIB == pytest.approx(5.467, abs=0.005)
    assert llama_on_h200.size.packed == 32 * 218_103_808
    shape = llama_on_h200.shape
    assert (shape.adapter_parameters, shape.largest_group, shape.room_parameters) == (
        41_943_040, 119_408_640, 3_382_272,
    )  # fmt: skip
    assert (shape.fused, shape.spread, shape.embedding_bytes) == (True, 0, 1_050_673_152)


def test_other_gpus_and_weights_have_other_shapes(llama_config, llama_folder):
    old = describe_model(llama_config, llama_folder, GPUS["t4"], "float16")
    assert old.shape.spread == 3 * 4096
    plain = llama_config.model_copy(update={"model": llama_config.model.model_copy(update={"quantization": "none"})})
    dense = describe_model(plain, llama_folder, GPUS["h200"], "bfloat16")
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
def test_peaks_from_a_configuration_are_those_that_were_measured(row, llama_on_h200):
    tokens, again, offloaded, weights, embeddings, optimizer, peak = row
    plan = TrainingPlan(tokens, 32, again, offloaded, weights, embeddings, optimizer, True)
    predicted = peak_parts(llama_on_h200.shape, Machine(llama_on_h200.size.total, 0, 0), plan).total / GIB
    assert predicted == pytest.approx(peak, rel=0.05)
    assert predicted > 0.98 * peak


def test_one_of_two_processes_holds_parts_two_layers_and_half_the_head(llama_on_h200, llama_config, llama_folder):
    shared = describe_model(llama_config, llama_folder, GPUS["h200"], "bfloat16", processes=2)
    size, whole = shared.size, llama_on_h200.size
    # Of 32 layers of 112,513,024 bytes half of each, and two of them.
    assert whole.layers - size.layers == pytest.approx((32 / 2 - 2) * 112_513_024, rel=1e-4)
    assert size.adapters == whole.adapters
    # No embeddings; a head of 128,256 rows, filled up to 10 slices of 13,734.
    assert size.embeddings == 10 * 13_734 * 4096 * 2 // 2
    assert (shared.shape.embeddings_wait, shared.shape.head_slices, shared.shape.embedding_bytes) == (True, True, 0)
    step = forecast_step(shared, GPUS["t4"], llama_config, largest_step=7800, longest_row=1024)
    assert (step.plan.weights, step.plan.embeddings) == ("nf4", "host")
    assert step.parts.model == size.total
    kept = llama_config.training.model_copy(update={"embeddings": "device"})
    kept = llama_config.model_copy(update={"training": kept})
    on_device = describe_model(kept, llama_folder, GPUS["h200"], "bfloat16", processes=2)
    assert on_device.size.embeddings - size.embeddings == 128_256 * 4096 * 2


def test_estimated_rates_are_near_those_that_were_measured(llama_on_h200):
    """On an H200: 64 rows at once, and under a T4's memory."""
    roomy = TrainingPlan(18_432, 32, 0, 0, "dequantized", "device", ADAMW, True)
    assert tokens_per_second(llama_on_h200.shape, roomy, 989e12) == pytest.approx(17_534, rel=0.05)
    tight = TrainingPlan(3_970, 32, 8, 0, "nf4", "host", ADAMW, True)
    assert tokens_per_second(llama_on_h200.shape, tight, 989e12) == pytest.approx(12_615, rel=0.25)
    assert tokens_per_second(llama_on_h200.shape, roomy, None) is None


def test_a_step_is_forecast_as_training_would_plan_it(llama_on_h200, llama_config):
    sizes = {"largest_step": 7800, "longest_row": 1024}
    large = forecast_step(llama_on_h200, GPUS["h200"], llama_config, **sizes)
    assert (large.plan.checkpointed_layers, large.plan.weights) == (0, "dequantized")
    assert large.parts.total == large.plan.peak_bytes <= large.plan.limit_bytes
    small = forecast_step(llama_on_h200, GPUS["t4"], llama_config, **sizes)
    assert (small.plan.weights, small.plan.embeddings) == ("nf4", "host")
    assert small.tokens_per_second < large.tokens_per_second
    with pytest.raises(ModelError, match="training does not fit: the smallest plan takes"):
        forecast_step(llama_on_h200, GPUS["t4"], llama_config, largest_step=10**6, longest_row=10**6)
