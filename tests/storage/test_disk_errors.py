"""What libraries make of a disk that is full, over a limit, read-only or broken."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from medtune.errors import DiskError, RunDirError
from medtune.storage.disk_errors import describe_disk_error, quiet_threads, writing

LIMIT = 100_000
TOO_LARGE = "larger than a file may be here; raise the limit (`ulimit -f`) or move to another file system"


@pytest.fixture
def size_limit() -> Iterator[None]:
    """No file of this process can grow beyond `LIMIT` bytes. Python ignores the signal that goes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _text(path: Path) -> None:
    path.write_text("x" * 2 * LIMIT, encoding="utf-8")


def _parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": list(range(LIMIT))}), path)


def _safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(LIMIT)}, path)


def _torch(path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(LIMIT)}, path)


def _tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = {f"word{number}": number for number in range(LIMIT // 10)}
    Tokenizer(models.WordLevel(words, unk_token="word0")).save(str(path))


@pytest.mark.parametrize("write", [_text, _parquet, _safetensors, _torch, _tokenizer])
@pytest.mark.usefixtures("size_limit")
def test_whatever_a_library_makes_of_it(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(DiskError) as caught, writing(tmp_path):
        write(tmp_path / "file")
    assert str(caught.value) == f"{tmp_path}: {TOO_LARGE}"


@pytest.mark.usefixtures("size_limit")
def test_asking_why_a_write_failed_touches_no_file_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "older").write_bytes(b"older")
    (tmp_path / "file").write_bytes(bytes(LIMIT - 5))
    os.utime(tmp_path / "older", (1, 1))

    def files() -> dict[Path, object]:
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in tmp_path.iterdir()
        }

    before = files()
    with pytest.raises(DiskError), writing(tmp_path):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")
    assert files() == before


def test_a_device_without_room() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs Linux's /dev/full")
    with pytest.raises(DiskError) as caught, writing(Path("/dev/full")):
        _text(Path("/dev/full"))
    assert str(caught.value) == "/dev/full: no space left on the device; make room"


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOSPC, "no space left on the device; make room"),
        (errno.EDQUOT, "the disk quota is used up; make room"),
        (errno.EFBIG, TOO_LARGE),
        (errno.EROFS, "the file system is read-only; make it writable"),
        (errno.EACCES, "permission denied; check who may read and write it"),
        (errno.EIO, "input/output error; check the disk or the mount"),
    ],
)
def test_each_problem_has_its_line(number: int, problem: str) -> None:
    error = OSError(number, os.strerror(number), "a/file")
    assert describe_disk_error(error) == f"a/file: {problem}"
    assert describe_disk_error(OSError(number, os.strerror(number)), elsewhere="runs/x") == f"runs/x: {problem}"
    with pytest.raises(DiskError, match=r"^mine: "), writing(Path("mine")):
        raise error


def test_the_reason_may_be_a_cause_or_what_was_going_on() -> None:
    def fail(by_cause: bool) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "cache/rows")
        except OSError as error:
            if by_cause:
                raise ValueError("the data set could not be made") from error
            raise KeyError("rows")  # noqa: B904

    for by_cause in (True, False):
        with pytest.raises((ValueError, KeyError)) as caught:
            fail(by_cause)
        assert describe_disk_error(caught.value) == "cache/rows: no space left on the device; make room"


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for error in (
        RuntimeError("CUDA error"),
        KeyError("x"),
        FileNotFoundError(errno.ENOENT, "x"),
        RunDirError("one line"),
    ):
        with pytest.raises(type(error)) as caught, writing(tmp_path):
            raise error
        assert caught.value is error
        assert describe_disk_error(error) is None
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_bug_after_a_permission_that_was_lacking_keeps_its_traceback() -> None:
    def fail() -> None:
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "file")
        except PermissionError:
            raise KeyError("bug")  # noqa: B904

    with pytest.raises(KeyError) as caught:
        fail()
    assert describe_disk_error(caught.value) is None


def test_threads_are_quiet_about_the_disk_and_about_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: told.append(failure.exc_value))

    def run(error: Exception) -> None:
        def fail() -> None:
            raise error

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

    bug = KeyError("bug")
    with quiet_threads():
        run(OSError(errno.ENOSPC, "No space left on device"))
        run(bug)
    assert told == [bug]
