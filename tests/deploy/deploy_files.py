"""Where the files of `deploy/` are, and what their tests share."""

from __future__ import annotations

import sys
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


def tools_folder(folder: Path) -> Path:
    """A folder for the PATH with a `torchrun` of this interpreter, whatever is installed beside it."""
    tools = folder / "tools"
    tools.mkdir()
    program = tools / "torchrun"
    program.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    program.chmod(0o755)
    return tools
