"""Whole files and folders, where folders can be renamed and where they cannot; room on a disk; marks of processes."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from medtune.errors import DiskError
from medtune.storage import writing
from medtune.storage.writing import (
    MARK_NAME,
    clear_leftovers,
    flush,
    is_abandoned,
    is_leftover,
    mark_as_own,
    nearest_folder,
    replacing_file,
    replacing_folder,
    require_room,
)


def fail_with(number: int) -> Any:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number), str(args[0]))

    return fail


@pytest.fixture(params=[errno.ENOSYS, errno.EMFILE, errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EIO])
def no_folder_rename(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that renames files and no folders, as mounts of buckets."""
    replace = Path.replace

    def refuse_folders(path: Path, target: Path) -> Path:
        if path.is_dir():
            raise OSError(request.param, os.strerror(request.param), str(path))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refuse_folders)
    monkeypatch.setattr(writing, "_said_copied", False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, text: str) -> None:
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_folder(path: Path, text: str) -> None:
    with replacing_folder(path) as temporary:
        (temporary / "deep").mkdir()
        for name in ("file", "deep/file"):
            (temporary / name).write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("no_folder_rename")
def test_folders_that_cannot_be_renamed_are_copied_and_that_is_said_once(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.WARNING)
    for text in ("first", "second"):
        write(tmp_path / "note", text)
        write_folder(tmp_path / "folder", text)
        for name in ("note", "folder/file", "folder/deep/file"):
            assert (tmp_path / name).read_text(encoding="utf-8") == text
    assert names(tmp_path) == ["folder", "note"]
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}: the file system cannot rename folders (")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_rename_that_fails_for_want_of_room_or_permission_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(tmp_path / "note", "old")
    monkeypatch.setattr(Path, "replace", fail_with(number))
    with pytest.raises(DiskError, match=rf"^{tmp_path}/note: "):
        write(tmp_path / "note", "new")
    with pytest.raises(DiskError, match=rf"^{tmp_path}/folder: "):
        write_folder(tmp_path / "folder", "new")
    assert (tmp_path / "note").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["note"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EXDEV, errno.EPERM])
def test_a_file_that_cannot_be_renamed_is_refused_and_nothing_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(tmp_path / "note", "old")
    monkeypatch.setattr(Path, "replace", fail_with(number))
    with pytest.raises(DiskError) as caught:
        write(tmp_path / "note", "new")
    problem = f"the file system cannot rename files ({os.strerror(number)}); move to another file system"
    if number == errno.EPERM:
        problem = "not permitted; check who may read and write it"
    assert str(caught.value) == f"{tmp_path}/note: {problem}"
    assert (tmp_path / "note").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["note"]


def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "note", "old")
    write_folder(tmp_path / "folder", "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskError) as caught, replacing_file(tmp_path / "note") as temporary:
        fail(temporary)
    assert str(caught.value) == f"{tmp_path}/note: no space left on the device; make room"
    with pytest.raises(DiskError) as caught, replacing_folder(tmp_path / "folder") as temporary:
        fail(temporary / "file")
    assert str(caught.value) == f"{tmp_path}/folder: no space left on the device; make room"
    assert (tmp_path / "note").read_text(encoding="utf-8") == "old"
    assert (tmp_path / "folder/deep/file").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["folder", "note"]


@pytest.mark.parametrize("renames", [True, False])
def test_a_new_folder_is_marked_while_it_is_written_and_the_mark_stays_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: bool
) -> None:
    (tmp_path / f".folder-{os.getpid()}").mkdir()  # a user's own
    if not renames:
        monkeypatch.setattr(Path, "replace", fail_with(errno.EXDEV))
    with replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("new", encoding="utf-8")
        assert (temporary.parent / MARK_NAME).is_file()
        assert temporary.parent.parent == tmp_path
    assert names(tmp_path) == [f".folder-{os.getpid()}", "folder"]
    assert names(tmp_path / "folder") == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_knows_no_flushing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(number))
    flush(tmp_path)
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        flush(tmp_path)


def test_flushing_asks_for_no_more_than_a_mount_without_a_cache_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone's opens a file for reading or for writing, and refuses both with EPERM."""
    opened, flags = os.open, []
    monkeypatch.setattr(os, "open", lambda path, mode, *more: flags.append(mode) or opened(path, mode, *more))
    (tmp_path / "note").write_text("x")
    flush(tmp_path / "note")
    assert [mode & os.O_ACCMODE for mode in flags] == [os.O_RDONLY]


def test_the_nearest_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path
    assert str(nearest_folder(Path("runs/demo"))) == str(tmp_path)


def test_room_is_that_of_the_nearest_folder(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    require_room(tmp_path / "a" / "b", free // 2, "--to")
    with pytest.raises(DiskError, match=r"a: \d+\.\d GB are to be written and \d+\.\d GB are free; make room"):
        require_room(tmp_path / "a", free * 2, "--to")


@pytest.mark.parametrize(
    ("changes", "abandoned"),
    [
        ({}, False),
        ({"number": 4194305}, True),
        ({"number": -1}, False),
        ({"started": 1.0}, True),  # the number was given again
        ({"number": 4194305, "host": "another"}, False),
        ({"number": 4194305, "numbers": "pid:[1]"}, False),
        ({"number": "x"}, False),
    ],
)
def test_only_a_process_of_this_machine_that_is_gone_leaves_its_folder(
    tmp_path: Path, changes: dict[str, object], abandoned: bool
) -> None:
    mark_as_own(tmp_path)
    mark = json.loads((tmp_path / MARK_NAME).read_text(encoding="utf-8"))
    assert mark["number"] == os.getpid()
    (tmp_path / MARK_NAME).write_text(json.dumps(mark | changes), encoding="utf-8")
    assert is_abandoned(tmp_path) is abandoned


@pytest.mark.parametrize("content", [None, "", "{}", "[1]"])
def test_a_folder_without_a_mark_is_somebodys(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / MARK_NAME).write_text(content, encoding="utf-8")
    assert not is_abandoned(tmp_path)


NAMES = {"scores.json", "adapter"}


def test_only_temporary_names_go(tmp_path: Path) -> None:
    for name in (".scores.json.123", ".scores.json", ".scores.json.bak", ".mine.txt.1", "scores.json.1", "scores.json"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    for name in (".adapter-77", ".adapter-ab_c1234", ".adapter-mine", "adapter", ".scores.json.9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x", encoding="utf-8")
    (tmp_path / ".scores.json.5").symlink_to("scores.json")
    clear_leftovers(tmp_path, NAMES)
    assert names(tmp_path) == [
        ".adapter-mine", ".mine.txt.1", ".scores.json", ".scores.json.5", ".scores.json.9", ".scores.json.bak",
        "adapter", "scores.json", "scores.json.1",
    ]  # fmt: skip
    clear_leftovers(tmp_path / "nowhere", NAMES)


@pytest.mark.parametrize(("name", "left"), [(".scores.json.1", True), (".scores.json", False), (".lock", False)])
def test_a_file_is_told_by_its_name(tmp_path: Path, name: str, left: bool) -> None:
    assert is_leftover(tmp_path / name, NAMES) is left
