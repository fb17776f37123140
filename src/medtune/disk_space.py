"""Room on a disk, looked at before anything large is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from medtune.errors import DiskError


def nearest_folder(path: Path) -> Path:
    """The folder at or above `path` that is there."""
    absolute = path.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if os.path.isdir(parent))


def require_room(path: Path, size: int, option: str) -> None:
    """Raises DiskError unless `size` bytes can be written to `path`, which `option` of a command has named."""
    free = shutil.disk_usage(nearest_folder(path)).free
    if size > free:
        raise DiskError(
            f"{path}: {size / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free; make room, or give "
            f"{option} on a larger disk"
        )
