"""A finished run of the tiny model, made once, and copies of it that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.pipeline import run as pipeline
from medtune.run_dir.directory import RunDir
from stopping import write_recipe
from tiny_model import Tiny


@pytest.fixture(scope="session")
def finished_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Never changed by a test."""
    folder = tmp_path_factory.mktemp("publishing")
    return pipeline.run(load_recipe(str(write_recipe(tiny, folder, steps=3)), []), folder / "run")


@pytest.fixture
def copied_run(finished_run: RunDir, tmp_path: Path) -> RunDir:
    """A copy to be changed."""
    return RunDir(Path(shutil.copytree(finished_run.path, tmp_path / "run")))


@pytest.fixture
def reconfigured(copied_run: RunDir) -> Callable[..., RunDir]:
    """The copied run as if it had been made with other values of some keys."""

    def change(**sections: dict[str, object]) -> RunDir:
        from medtune.config.recipes.yaml_text import dump_config

        run = RunDir(copied_run.path)
        updates = {name: getattr(run.config, name).model_copy(update=values) for name, values in sections.items()}
        run.write_text(run.config_file, dump_config(run.config.model_copy(update=updates)))
        run.record_start()
        return RunDir(run.path)

    return change
