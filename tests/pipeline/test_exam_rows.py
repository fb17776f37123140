"""A run on exam questions from end to end, whose verdict rests on exact match alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.config.recipes import load_recipe
from medtune.evaluation.result_files import read_comparison
from medtune.pipeline import run as pipeline
from medtune.run_dir.layout import STAGE_NAMES
from tiny_model import Tiny


def write(path: Path, recipe: str, count: int) -> Path:
    """Rows of the recipe's shape."""
    rows = []
    for n in range(count):
        row: dict[str, Any] = {"question": f"Question {n} ?"}
        if recipe == "medmcqa":
            row |= {f"op{letter}": f"Drug {n}{letter}" for letter in "abcd"} | {"cop": n % 4, "subject_name": "Drugs"}
        else:
            row |= {"pubid": n, "context": {"contexts": ["Some ran."]}, "final_decision": ("yes", "no")[n % 2]}
        rows.append(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("recipe", ["medmcqa", "pubmedqa"])
def test_a_run_on_short_answers_ends_with_a_verdict_on_exact_match(recipe: str, tiny: Tiny, tmp_path: Path) -> None:
    values = {
        "model.base": str(tiny.path), "model.dtype": "float32", "model.quantization": "none",
        "data.source": str(write(tmp_path / "rows.jsonl", recipe, 60)), "data.hub_split": None,
        "data.hub_config": None, "training.max_steps": 2, "training.max_length": 400,
        "generation.max_new_tokens": 4, "evaluation.resamples": 200,
        "evaluation.controls": ["few_shot", "random_answer"],
    }  # fmt: skip
    run = pipeline.start_run(load_recipe(recipe, values), tmp_path / "run", resume=False)
    for stage in STAGE_NAMES:
        pipeline.perform(stage, run)
    comparison = read_comparison(run)
    assert [row.metric for row in comparison.rows if row.is_primary] == ["exact_match"]
    assert {row.metric for row in comparison.rows} >= {"exact_match", "perplexity"}
    assert "exact match" in run.report_file.read_text(encoding="utf-8")
