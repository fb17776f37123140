"""Which process a temporary folder belongs to, said in the folder itself: a name alone may be a user's own folder's."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from medtune.checked_files import DamagedError, check_type, read_mapping

MARK_NAME = ".medtune-process.json"
# A process's start is reckoned from the machine's, which moves a little when its clock is set.
_CLOCK_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _Process:
    """`started` is in seconds since 1970: the number alone is given again. Containers have `numbers` of their own."""

    host: str
    numbers: str
    number: int
    started: float


def mark_as_own(folder: Path) -> None:
    """Say in `folder` that this process is writing there."""
    import psutil

    own = _Process(platform.node(), _numbers(), os.getpid(), psutil.Process().create_time())
    (folder / MARK_NAME).write_text(json.dumps(asdict(own)), encoding="utf-8")


def is_abandoned(folder: Path) -> bool:
    """Whether a process of this machine that is no more was writing in `folder`."""
    import psutil

    try:
        owner: _Process = check_type(_Process, read_mapping(folder / MARK_NAME))
    except (DamagedError, FileNotFoundError):
        return False
    if (owner.host, owner.numbers) != (platform.node(), _numbers()):
        return False
    try:
        return bool(abs(psutil.Process(owner.number).create_time() - owner.started) > _CLOCK_SECONDS)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError, OverflowError):  # another user's; or a number that no process has
        return False


def _numbers() -> str:
    """What tells one container's process numbers from another's, on Linux."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
