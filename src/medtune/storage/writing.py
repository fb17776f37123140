"""Files and folders that appear whole or not at all, whatever ends the process or the machine.

Mounts of a cloud's buckets may rename files and no folders (gcsfuse: ENOSYS or EMFILE): there a folder is copied to its
place, and checksums kept elsewhere tell whether all of it has arrived.
"""

import errno
import json
import logging
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from medtune.errors import DiskError, Option
from medtune.storage.disk_errors import is_full, writing
from medtune.storage.reading import DamagedError, check_type, read_mapping

MARK_NAME = ".medtune-process.json"
# A process's start time is computed from the machine's, which shifts a little when the clock is set.
_CLOCK_SECONDS = 60

# Temporary names. A folder has eight random characters; for a while it had the process's number.
_FILE, _FOLDER = re.compile(r"\.(.+)\.\d+"), re.compile(r"\.(.+)-(?:\d+|[a-z0-9_]{8})")
# Errors for a request that a file system does not know.
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_log = logging.getLogger(__name__)
_said_copied = False


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` that takes its place once the block has ended without an error.

    Raises DiskError if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            flush(temporary)
            _rename_file(temporary, path)
            flush(path.parent)
        finally:
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
            _move_folder(temporary, path)
            flush(path.parent)
    finally:
        shutil.rmtree(around, ignore_errors=True)


def flush(path: Path) -> None:
    """Write a file's content, or a folder's list of names, through to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    # Windows flushes what is open for writing; a mount without a cache (rclone's) opens for one of the two.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(descriptor)


def _rename_file(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError as error:
        if error.errno in _UNKNOWN | {errno.EXDEV}:
            fix = "move to another file system"
            raise DiskError(path, f"the file system cannot rename files ({error.strerror})", fix) from None
        raise


def _move_folder(source: Path, target: Path) -> None:
    """Rename a folder, or copy it where the file system cannot. Raises OSError for what a copy would not get round."""
    try:
        source.replace(target)
    except OSError as error:
        if is_full(error) or error.errno in (errno.EROFS, errno.EACCES, errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
            raise
        _say_copied(target.parent, error.strerror or type(error).__name__)
        _copy_folder(source, target)


def _say_copied(folder: Path, reason: str) -> None:
    global _said_copied
    if not _said_copied:
        _said_copied = True
        _log.warning(
            "%s: the file system cannot rename folders (%s); they are copied to their places, and checksums tell which "
            "are whole",
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
    """The nearest existing folder at or above `path`."""
    absolute = path.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if os.path.isdir(parent))


def require_room(path: Path, size: int, option: Option) -> None:
    """Raises DiskError unless `size` bytes can be written to `path`, which the user gave as `option`."""
    free = shutil.disk_usage(nearest_folder(path)).free
    if size > free:
        fix = ("make room, or give ", option, " on a larger disk")
        raise DiskError(path, f"{size / 1e9:.1f} GB are to be written and {free / 1e9:.1f} GB are free", fix)


@dataclass(frozen=True, slots=True)
class _Process:
    """`started`, in seconds since 1970, identifies a process whose number was reused; `numbers` its container."""

    host: str
    numbers: str
    number: int
    started: float


def mark_as_own(folder: Path) -> None:
    """Record in `folder` that this process writes there."""
    import psutil

    own = _Process(platform.node(), _numbers(), os.getpid(), psutil.Process().create_time())
    (folder / MARK_NAME).write_text(json.dumps(asdict(own)), encoding="utf-8")


def is_abandoned(folder: Path) -> bool:
    """Whether `folder` was written by a process of this machine that has ended."""
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
    """The namespace of process numbers, which differs between containers; empty if not on Linux."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def is_leftover(path: Path, names: Iterable[str]) -> bool:
    """Whether `path` is a temporary name of a file or folder that is called one of `names`."""
    found = (_FOLDER if path.is_dir() else _FILE).fullmatch(path.name)
    return found is not None and found[1] in names and not path.is_symlink()


def clear_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Delete the temporary files of `names` in `folder`, which the caller has locked: they may be in use."""
    names = set(names)
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path, names):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def clear_abandoned(path: Path) -> None:
    """Delete the temporary folders of `path` whose processes have ended, where no lock protects its parent."""
    for folder in path.parent.iterdir() if path.parent.is_dir() else ():
        ours = folder.name.startswith(f".{path.name}-") and folder.is_dir() and not folder.is_symlink()
        if ours and is_abandoned(folder):
            shutil.rmtree(folder)
