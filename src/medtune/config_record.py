"""What a run keeps of its `config.yaml` elsewhere, so that one that was cut off is not taken for a shorter one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medtune.config import Config
from medtune.errors import ConfigError
from medtune.recipes import dump_config, read_config


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
        # Every key stands in a whole one.
        return dump_config(read_config(file)) != file.read_text(encoding="utf-8")
    except ConfigError:
        return True
