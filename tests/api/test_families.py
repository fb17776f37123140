"""Families that differ most from LLaMA through the stages that touch a model: planned, trained for two steps, asked."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import medtune
from tiny_model import write_rows

sys.path.append(str(Path(__file__).resolve().parents[1] / "model"))
from architectures import ARCHITECTURES, Architecture


def overrides_for(architecture: Architecture, folder: Path, **more: object) -> dict[str, object]:
    return {
        "model": {"base": architecture.save(folder / "model"), "dtype": "float32"},
        "data": {"source": write_rows(folder / "rows.csv"), "split": {"test": 0.2, "validation": 0.1}},
        "training": {"max_steps": 2, "effective_batch_rows": 4, "max_length": 256, "learning_rate": 1e-2},
        "generation.max_new_tokens": 16,
        "evaluation": {"metrics": ["bleu", "perplexity"], "controls": [], "resamples": 500},
        "lora.targets": architecture.targets,
        **more,
    }


# Of all, `tests/model/test_architectures.py` compares training steps and answers with the plain model's.
@pytest.mark.parametrize("name", ["Gemma 2", "Phi 3, window"])
def test_a_family_is_planned_trained_and_asked(name: str, tmp_path: Path):
    values = overrides_for(ARCHITECTURES[name], tmp_path)
    forecast = medtune.plan("demo", "t4", overrides=values).forecasts["t4"]
    assert not isinstance(forecast, str)
    with medtune.prepare("demo", tmp_path / "run", overrides=values) as run:
        medtune.train(run)
        losses = [entry["loss"] for entry in run.history() if "loss" in entry]
        assert len(losses) == 2
        assert all(0 < loss < 20 for loss in losses)
        assert medtune.evaluate(run, "tuned")["perplexity"].value > 1
        stored = {row.question: row.prediction for row in run.predictions("tuned")}
        question = next(iter(stored))
        assert run.ask(question) == stored[question]
        assert isinstance(run.ask(question, base=True), str)


def test_a_target_that_the_model_lacks_is_told_with_those_it_has(tmp_path: Path):
    values = overrides_for(ARCHITECTURES["Phi 3"], tmp_path)
    del values["lora.targets"]
    with pytest.raises(medtune.MedtuneError) as caught:
        medtune.prepare("demo", tmp_path / "run", overrides=values)
    assert str(caught.value) == (
        f"lora.targets: q_proj, k_proj, v_proj, gate_proj, up_proj not in {values['model']['base']}; "
        "set lora.targets to [down_proj, gate_up_proj, o_proj, qkv_proj] or some of these, or to all-linear"
    )
    assert not (tmp_path / "run").exists()


def test_angles_that_depend_on_other_rows_are_refused(tmp_path: Path):
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    options = {"rope_parameters": rope, "original_max_position_embeddings": 200}
    architecture = replace(ARCHITECTURES["Phi 3"], options=options)
    values = overrides_for(architecture, tmp_path)
    with pytest.raises(medtune.MedtuneError, match="max_length: 256 exceeds the model's context of 200 tokens"):
        medtune.prepare("demo", tmp_path / "run", overrides=values)
