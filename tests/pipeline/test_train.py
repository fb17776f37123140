"""The train stage: rows that it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from medtune.__main__ import main
from medtune.model.demo_model import CHAT_TEMPLATE
from tiny_model import Tiny, write_rows


def medtune(*arguments: str | Path, status: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medtune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert (stopped.value.code or 0) == status


def recipe(folder: Path, model: Path, **sections: Any) -> Path:
    values: dict[str, Any] = {
        "model": {"base": str(model)},
        "data": {"source": str(write_rows(folder / "rows.csv"))},
        "training": {"max_length": 256, "max_steps": 1},
        "evaluation": {"metrics": ["perplexity"]},
    }
    for name, section in sections.items():
        values[name] |= section
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.fixture
def doubled(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny model, with a chat template that writes BOS twice."""
    folder = tmp_path / "doubled"
    shutil.copytree(tiny.path, folder)
    template = CHAT_TEMPLATE.replace("{{ bos_token }}", "{{ bos_token }}{{ bos_token }}")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def test_training_refuses_rows_with_two_bos(doubled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    medtune("data", "prepare", recipe(tmp_path, doubled), "--run-dir", tmp_path / "run")
    capfd.readouterr()
    medtune("train", tmp_path / "run", status=2)
    error = capfd.readouterr().err.splitlines()[-1]
    # Train and validation rows alike.
    assert "(36 in all): BOS is there twice" in error
    assert not (tmp_path / "run" / "adapter").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()
