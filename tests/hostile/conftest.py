"""One good run for all cases, and a workspace with a copy of it for each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from command_line import Medtune, command_runner
from hostile import inputs
from tiny_model import Tiny, write_rows

RECIPE = {
    "model": {"base": "model", "dtype": "float32", "quantization": "none"},
    "data": {"source": "rows.csv", "split": {"test": 0.2}},
    "training": {
        "max_steps": 4,
        "checkpoint_steps": 2,
        "effective_batch_rows": 4,
        "max_length": 256,
        "checkpointing": "none",
        "keep": "last",
    },
    "generation": {"max_new_tokens": 8},
    "evaluation": {"metrics": ["bleu", "rougeL", "perplexity"], "controls": ["cut_reference"]},
}


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workspace: Path) -> Medtune:
    """Runs a command line in the workspace, in this process."""
    monkeypatch.chdir(workspace)
    # As `python -m medtune` has it: what lies in the working folder could be imported.
    monkeypatch.syspath_prepend(str(workspace))
    return command_runner(monkeypatch, capsys)


@pytest.fixture(scope="session")
def good_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, its rows, a recipe, and a finished run with its sheet for raters."""
    import sys

    from medtune.__main__ import main

    folder = tmp_path_factory.mktemp("good")
    (folder / "model").symlink_to(tiny.path)
    write_rows(folder / "rows.csv")
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))  # JSON is YAML
    for command in ("run recipe.yaml --run-dir run", "human export run --n 4"):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["medtune", *command.split()])
            patch.setattr(sys, "excepthook", sys.excepthook)
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
    (folder / "whole.json").write_bytes((folder / "run/provenance.json").read_bytes())
    # Edits that the checksums give away are cases of their own; here they are hidden.
    inputs.edit_json("run/provenance.json", _without_checksums)(folder)
    return folder


def _without_checksums(provenance: Any) -> None:
    provenance.pop("config")
    for record in provenance["stages"].values():
        record.pop("files")


@pytest.fixture
def workspace(good_run: Path, tmp_path: Path) -> Path:
    """A copy of the good run's folder to do harm in; the model is a link, for `inputs.own_model` to replace."""
    folder = tmp_path / "workspace"
    shutil.copytree(good_run, folder, symlinks=True)
    return folder
