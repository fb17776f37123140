"""Where a merged model is measured, on which questions, and when a merge is marked."""

from dataclasses import replace

import pytest
import torch

from hardware_facts import T4
from medtune.config.schema import Config
from medtune.inference import merge_measurement
from medtune.inference.merge_measurement import (
    MeasuringPlan,
    NotMeasuredError,
    choose_prompts,
    measure_merge,
    plan_measuring,
)
from medtune.records import QAPair


def test_prompts_are_the_same_whatever_their_order():
    pairs = [QAPair(str(number), "", f"q{number}", "a") for number in range(200)]
    chosen = choose_prompts(pairs)
    assert len(chosen) == 64
    assert choose_prompts(pairs[::-1]) == chosen
    assert {pair.id for pair in chosen[:32]} != {str(number) for number in range(32)}
    assert len(choose_prompts(pairs[:10])) == 10


CONFIG = Config.model_validate({"model": {"base": "x/y", "dtype": "auto"}, "data": {"source": "x"}})


def test_where_a_merged_model_is_measured(facts):
    gib = 2**30
    facts.no_gpu()
    facts.memory(free=10 * gib)
    assert plan_measuring(CONFIG, gib, asked=False).obstacle is None
    # 12 GiB in float32 of 9 that weights may take.
    assert "12.0 GiB of weights do not fit in the 9.0 GiB" in plan_measuring(CONFIG, 3 * gib, asked=True).obstacle
    assert "--measure does it" in plan_measuring(CONFIG, 3 * gib, asked=False).obstacle
    facts.gpus(replace(T4, free=10 * gib))
    facts.memory(free=2 * gib)
    assert not plan_measuring(CONFIG, 4 * gib, asked=False).spread
    assert plan_measuring(CONFIG, 5 * gib, asked=False).spread
    assert plan_measuring(CONFIG, 6 * gib, asked=False).obstacle is not None


def test_memory_that_runs_out_is_said(monkeypatch, tmp_path):
    def fails(*args, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(merge_measurement, "_evaluated", fails)
    with pytest.raises(NotMeasuredError, match=r"^memory ran out$"):
        measure_merge(CONFIG, tmp_path, tmp_path, [], MeasuringPlan())
