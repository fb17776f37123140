"""The predicted peak of a step, against what was measured, and the plan in words."""

from dataclasses import replace

import pytest
from shapes_8b import LLAMA

from medtune.training.plan.peaks import GIB, Machine, TrainingPlan, optimizer_bytes, peak_parts

# Peaks that torch's allocator reported on an H100 and an H200 (torch 2.11, LLaMA-3-8B's shape, no optimiser state):
# tokens a pass, layers computed again, in host memory, weights, embeddings, allocated before, peak, both in GiB.
MEASURED = [
    (4096, 32, 0, "nf4", "device", 5.467, 7.366),
    (1178, 32, 0, "nf4", "host", 4.551, 5.349),
    (6144, 32, 0, "nf4", "host", 4.551, 7.122),
    (4096, 32, 32, "nf4", "host", 4.551, 5.450),
    (8192, 32, 32, "nf4", "host", 4.551, 6.015),
    (4096, 0, 0, "nf4", "device", 5.577, 17.562),
    (4096, 16, 0, "nf4", "host", 4.598, 11.311),
    (4096, 0, 0, "dequantized", "host", 17.596, 29.513),
    (8192, 0, 0, "dequantized", "host", 17.596, 41.147),
    (16_384, 0, 0, "dequantized", "host", 17.551, 64.439),
]


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(map(str, row[:5])))
def test_predicted_peaks_are_those_that_were_measured(row):
    tokens, checkpointed, offloaded, weights, embeddings, allocated, peak = row
    # What was allocated before is as after loading: embeddings moved already, weights dequantised already.
    held = 32 * LLAMA.packed_layer_parameters * 2 if weights == "dequantized" else 0
    before = Machine(round(allocated * GIB) - held, 0, 0)
    wanted = TrainingPlan(tokens, 32, checkpointed, offloaded, weights, embeddings, "paged_adamw_8bit", True)
    predicted = peak_parts(replace(LLAMA, embedding_bytes=0), before, wanted)
    assert predicted.total / GIB == pytest.approx(peak, rel=0.05)


def test_the_parts_of_a_peak_add_up():
    before = Machine(5 * GIB, 0, 0)
    plan = TrainingPlan(4096, 32, 16, 0, "nf4", "host", "adamw_torch_fused", True)
    parts = peak_parts(LLAMA, before, plan)
    assert parts.model == 5 * GIB - LLAMA.embedding_bytes
    assert parts.gradients == 4 * LLAMA.adapter_parameters
    assert parts.optimizer == 8 * LLAMA.adapter_parameters
    kept = parts.inputs + parts.kept + parts.moment
    assert parts.total == int(parts.model + parts.dequantized + parts.gradients + parts.optimizer + kept)


@pytest.mark.parametrize(
    ("name", "a_parameter"), [("adamw_torch_fused", 8.0), ("adamw_8bit", 2.1), ("paged_adamw_8bit", 0.0)]
)
def test_the_bytes_of_an_optimisers_state(name, a_parameter):
    assert optimizer_bytes(name) == a_parameter


def test_a_plan_is_told_in_one_line():
    plan = TrainingPlan(4096, 32, 31, 5, "nf4", "host", "adamw_torch_fused", True, 6 * GIB, 7 * GIB)
    assert plan.describe() == (
        "passes of up to 4,096 tokens; 31 of 32 layers computed again, 5 from inputs in host memory; base weights as "
        "they are stored; embeddings in host memory; optimiser adamw_torch_fused; predicted peak 6.0 of 7.0 GiB"
    )
