"""The train stage: rows that it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from command_line import medtune
from medtune.model.demo_model import CHAT_TEMPLATE
from stopping import small_recipe as recipe
from tiny_model import Tiny


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
