"""Writing that fails because of the disk: full, over a quota or limit, read-only, refused or broken.

Libraries report it in many ways: an OSError, a text with its number (safetensors, tokenizers, pyarrow), or without any
reason (torch).
"""

import errno
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medtune.errors import DiskError, MedtuneError

# What is wrong, and what to do before the command can resume.
_FULL = {
    errno.ENOSPC: ("no space left on the device", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "make room"),
    errno.EFBIG: ("larger than a file may be here", "raise the limit (`ulimit -f`) or move to another file system"),
}
_REFUSED = {
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EACCES: ("permission denied", "check who may read and write it"),
    errno.EPERM: ("not permitted", "check who may read and write it"),
    errno.EIO: ("input/output error", "check the disk or the mount"),
}
_PROBLEMS = _FULL | _REFUSED
# "(os error 28)" in Rust's texts, "[errno 28]" in pyarrow's.
_NUMBER = re.compile(r"\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)


@contextmanager
def writing(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Errors of the disk in this block become a DiskError about `path`.

    The block writes that file or folder, under the name `temporary` if one is given.
    """
    try:
        yield
    except MedtuneError:
        raise
    except Exception as error:  # tokenizers raises no narrower one
        number = next((number for link in _chain(error) if (number := _number(link))), None)
        if number is None and isinstance(error, RuntimeError):
            number = _ask_again(temporary or path)
        if number is None:
            raise
        raise DiskError(path, *_PROBLEMS[number]) from None


def describe_disk_error(error: BaseException, elsewhere: object = "the disk") -> DiskError | None:
    """The DiskError that `error` stands for; None if `error` is about something else.

    Its text names the file that the error names, or `elsewhere`. In what the error was caused by, only a full disk is
    looked for: a permission that once was lacking may have been dealt with.
    """
    for link in _chain(error):
        number = _number(link)
        if number in _FULL or (number is not None and link is error):
            file = getattr(link, "filename", None)
            place = os.fspath(file) if isinstance(file, (str, os.PathLike)) else elsewhere
            return DiskError(place, *_PROBLEMS[number])
    return None


@contextmanager
def quiet_threads() -> Iterator[None]:
    """In this block threads print no traceback of a disk error: the main thread gets TensorBoard's too."""
    before = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is None or describe_disk_error(failure.exc_value) is None:
            before(failure)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


def is_full(error: OSError) -> bool:
    """Whether the disk is full, or a quota or limit is reached."""
    return error.errno in _FULL


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _number(error: BaseException) -> int | None:
    """The errno of an error, if it is one about the disk."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _NUMBER.search(str(error))):
        number = int(found[1] or found[2])
    return number if number in _PROBLEMS else None


def _ask_again(path: Path) -> int | None:
    """What the system says to one more write beside a library's that failed without a reason, if it objects.

    Not the free space of the file system, which knows of no quota and no limit. An unnamed file is written, as far
    into it as the newest file under `path` is long.
    """
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    if not files:
        return None
    newest = max(files, key=lambda file: file.stat().st_mtime_ns)
    try:
        with tempfile.TemporaryFile(dir=newest.parent) as file:
            file.seek(newest.stat().st_size)
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return _number(error)
    return None
