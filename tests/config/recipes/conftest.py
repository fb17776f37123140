from pathlib import Path

import pytest


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Where a test writes a recipe of its own."""
    return tmp_path / "mine.yaml"
