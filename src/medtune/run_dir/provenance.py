"""What a run was made of: versions, hardware, commit; and what each stage cost."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.config.recipes import read_config
from medtune.config.recipes.yaml_text import dump_config
from medtune.config.schema import Config
from medtune.errors import ConfigError
from medtune.runtime.hardware import describe_hardware

if TYPE_CHECKING:
    pass

LIBRARIES = (
    "medtune", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "tokenizers",
    "huggingface_hub", "sacrebleu", "rouge-score", "bert-score", "sentencex", "numpy",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Versions, hardware, and the commit of medtune's checkout if it is one."""
    import platform

    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {"versions": versions, "hardware": describe_hardware(), "commit": _own_commit()}


def _own_commit() -> str | None:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def config_record(config: Config) -> dict[str, Any]:
    """`bytes` and `sha256` of the file that holds `config`."""
    content = dump_config(config).encode("utf-8")
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def is_start_of(file: Path, config: Config) -> bool:
    """Whether a file holds a part, from the start, of what it would hold of `config`."""
    whole = dump_config(config).encode("utf-8")
    if file.stat().st_size > len(whole):
        return False
    content = file.read_bytes().rstrip(b"\0")
    return len(content) < len(whole) and whole.startswith(content)


def is_cut_off(file: Path, record: Mapping[str, Any] | None) -> bool:
    """Whether a `config.yaml` has lost its end; the keys that are left may make a valid configuration.

    Without a `record`, of older versions, none has.
    """
    if record is None or file.stat().st_size >= record["bytes"]:
        return False
    try:
        # A whole one has every key.
        return dump_config(read_config(file)) != file.read_text(encoding="utf-8")
    except ConfigError:
        return True
