"""Files and folders that appear whole or not at all, whatever ends the process or the machine.

Where the file system cannot rename (some mounts of a cloud's drive) they are written in place. What is cut off there is
told by checksums kept elsewhere, or by the temporary file: it is whole, and stays until its content has arrived.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from medtune.errors import DiskError, Option
from medtune.storage.disk_errors import is_full, writing
from medtune.storage.reading import DamagedError, check_type, read_mapping

MARK_NAME = ".medtune-process.json"
# A process's start is reckoned from the machine's, which moves a little when its clock is set.
_CLOCK_SECONDS = 60

# What a file system says of a request that it does not know.
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# Not progress.say: progress stands above this module.
_log = logging.getLogger(__name__)
_said_in_place = False


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` that takes its place once the block has ended without an error.

    Raises DiskError if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    kept = False
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            flush(temporary)
            if not _renamed(temporary, path):
                kept = True
                shutil.copyfile(temporary, path)
                flush(path)
                kept = False
            flush(path.parent)
        finally:
            if not kept:
                temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `path` once the block has ended without an error.

    Raises DiskError if it cannot be written.
    """
    with writing(path):
        # Around the new folder, so that the process's mark never comes into that.
        around = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        with writing(path, around):
            mark_as_own(around)
            temporary = around / path.name
            temporary.mkdir()
            yield temporary
            _flush_all(temporary)
            if path.exists():
                shutil.rmtree(path)
            if not _renamed(temporary, path):
                _copy_folder(temporary, path)
            flush(path.parent)
    finally:
        shutil.rmtree(around, ignore_errors=True)


def flush(path: Path) -> None:
    """Have a file's content, or a folder's list of names, reach the disk."""
    if path.is_dir():
        if os.name == "nt":
            return  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(descriptor)


def unfinished_copy(path: Path) -> Path | None:
    """The whole temporary file of `path`, if writing that in place was cut off."""
    try:
        content = path.read_bytes().rstrip(b"\0")  # which some file systems leave for what did not arrive
    except FileNotFoundError:
        return None
    whole: list[tuple[int, Path]] = []
    for temporary in path.parent.glob(f".{path.name}.*"):
        with suppress(FileNotFoundError):  # gone meanwhile
            copy = temporary.read_bytes()
            if temporary.suffix[1:].isdigit() and len(content) < len(copy) and copy.startswith(content):
                whole.append((len(copy), temporary))
    return max(whole)[1] if whole else None


def _renamed(temporary: Path, path: Path) -> bool:
    """Rename; whether the file system can. Raises OSError for what writing in place would not get round either."""
    try:
        temporary.replace(path)
    except OSError as error:
        if is_full(error) or error.errno in (errno.EROFS, errno.EACCES, errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
            raise
        _say_in_place(path.parent, error.strerror or type(error).__name__)
        return False
    return True


def _say_in_place(folder: Path, reason: str) -> None:
    global _said_in_place
    if not _said_in_place:
        _said_in_place = True
        _log.warning(
            "%s: the file system cannot rename (%s); files are written in place, and checksums tell which are whole",
            folder,
            reason,
        )


def _copy_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(source.rglob("*")):
        copy = target / file.relative_to(source)
        if file.is_dir():
            copy.mkdir()
        else:
            shutil.copyfile(file, copy)  # without permissions, which such file systems refuse too
    _flush_all(target)


def _flush_all(folder: Path) -> None:
    for file in folder.rglob("*"):
        flush(file)
    flush(folder)


def nearest_folder(path: Path) -> Path:
    """The folder at or above `path` that is there."""
    absolute = path.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if os.path.isdir(parent))


def require_room(path: Path, size: int, option: Option) -> None:
    """Raises DiskError unless `size` bytes can be written to `path`, which `option` of a command has named."""
    free = shutil.disk_usage(nearest_folder(path)).free
    if size > free:
        raise DiskError(
            path,
            f"{size / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free",
            ("make room, or give ", option, " on a larger disk"),
        )


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
