"""Where the files of `deploy/` are, and what their tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOY = REPOSITORY / "deploy"
SOURCES = REPOSITORY / "src"


def read_yaml(name: str) -> dict[str, Any]:
    """The one document of a file in `deploy/`."""
    values: dict[str, Any] = YAML(typ="safe").load(DEPLOY / name)
    return values
