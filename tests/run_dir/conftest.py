"""A run that has only begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.config.schema import Config
from medtune.run_dir.directory import RunDir


@pytest.fixture
def config() -> Config:
    return load_recipe("demo")


@pytest.fixture
def run(tmp_path: Path, config: Config) -> RunDir:
    return RunDir.create(tmp_path / "run", config, resume=False)
