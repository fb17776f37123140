"""A folder to work in where the demo is a job of seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import medtune
from medtune.api.runs import Run
from medtune.config import recipes
from tiny_model import Tiny, write_rows


@pytest.fixture(scope="module")
def workplace(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with a recipe "demo" of the tiny model."""
    folder = tmp_path_factory.mktemp("workplace")
    values = {
        "model": {"base": str(tiny.path), "dtype": "float32"},
        "data": {"source": str(write_rows(folder / "rows.csv")), "split": {"test": 0.2, "validation": 0.1}},
        "training": {
            "max_steps": 3,
            "learning_rate": 3e-2,
            "effective_batch_rows": 4,
            "checkpointing": "none",
            "max_length": 256,
        },
        "generation": {"max_new_tokens": 20},
        "evaluation": {"metrics": ["bleu", "rougeL", "exact_match", "perplexity"], "resamples": 500},
    }
    (folder / "demo.yaml").write_text(json.dumps(values))  # JSON is YAML
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "files", lambda name: folder)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Run:
    """A finished run, `runs/demo`."""
    return medtune.run("demo", resume=(workplace / "runs" / "demo").exists())
