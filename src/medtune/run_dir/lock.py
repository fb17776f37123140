"""One process at a time works in a run directory."""

import json
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from medtune.errors import DiskError, RunDirError
from medtune.runtime.distributed import when_ended
from medtune.runtime.launch import is_main, world_size
from medtune.storage.writing import replacing_file

LOCK_NAME, LAUNCH_NAME = ".lock", "launch.json"
# Held until the command or the process ends, however it ends: the operating system lets go of it. The file itself means
# nothing.
_held: dict[Path, FileLock] = {}


def require_unlocked(folder: Path) -> None:
    """Raises RunDirError if another process works in `folder`; makes nothing there."""
    file = folder.resolve() / LOCK_NAME
    if not is_main() or file in _held or not os.path.isfile(file):  # Path.is_file would raise for a name too long
        return
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _worked_in(folder) from None
    except OSError:  # `lock_folder` says what is wrong with it
        return
    lock.release()


def _worked_in(folder: Path) -> RunDirError:
    return RunDirError(folder, "another medtune process works in this run directory", "wait for it to end, or stop it")


def lock_folder(folder: Path) -> bool:
    """Keep other processes out of `folder` for this process's life; whether it was this call that shut them out.

    Raises RunDirError if one works in there. The first process of a training holds the lock for all of them.
    """
    file = folder.resolve() / LOCK_NAME
    if not is_main() or (file in _held and file.exists()):
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _worked_in(folder) from None
    except OSError as error:
        fix = "choose a folder that can be written"
        raise RunDirError(folder, f"cannot be locked ({error.strerror})", fix) from None
    _held[file] = lock
    when_ended(lambda status: _record_end(folder, status))
    return True


def _record_end(folder: Path, status: int) -> None:
    """Write how a launch of several processes ended, for a job script that has only the launcher's own status."""
    with suppress(DiskError), replacing_file(folder / LAUNCH_NAME) as temporary:  # a full disk may have ended it
        temporary.write_text(json.dumps({"status": status, "processes": world_size()}, indent=2) + "\n")


def locked_folders() -> list[Path]:
    """The folders that this process works in."""
    return [file.parent for file in _held]


def release_locks() -> None:
    """Let go of every folder, for a process that outlives its command, such as a notebook's."""
    while _held:
        _held.popitem()[1].release()
