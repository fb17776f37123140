"""Bases that are published packed for other programs, dequantised as they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressed_models import Scheme, write_compressed
from medtune.config.recipes import load_recipe
from medtune.model.loaded import load_model
from medtune.pipeline import run as pipeline
from medtune.run_dir.lock import release_locks
from stopping import write_recipe
from tiny_model import Tiny


@pytest.mark.parametrize(("scheme", "error"), [("FP8", 0.07), ("W4A16", 0.3)])
def test_a_base_of_compressed_tensors_trains_in_16_bit(
    tiny: Tiny, tmp_path: Path, scheme: Scheme, error: float
) -> None:
    base = write_compressed(tiny.path, tmp_path / "packed", scheme)
    config = load_recipe(str(write_recipe(tiny, tmp_path, steps=2)), ["model.quantization=none"])
    loaded = load_model(config, for_training=False)
    plain = {name: weight.clone() for name, weight in loaded.model.named_parameters()}
    config = load_recipe(str(write_recipe(tiny, tmp_path, steps=2)), [f"model.base={base}", "model.quantization=none"])
    dequantised = dict(load_model(config, for_training=False).model.named_parameters())
    assert dequantised.keys() == plain.keys()
    for name, weight in dequantised.items():
        assert weight.dtype == torch.float32
        assert (weight - plain[name]).abs().max() <= error * plain[name].abs().max(), name
    run = pipeline.start_run(config, tmp_path / "run", resume=False)
    for stage in ("data", "baseline", "train"):
        pipeline.perform(stage, run)
    release_locks()
    assert run.is_complete("train")
