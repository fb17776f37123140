"""Of several processes one works in a run directory, for as long as it lives or until it lets go."""

import subprocess
import sys

import pytest

from medtune.errors import RunDirError
from medtune.run_dir.lock import LOCK_NAME, lock_folder, locked_folders, release_locks

OTHER = """
import sys
from pathlib import Path
from medtune.config.recipes import load_recipe
from medtune.errors import RunDirError
from medtune.run_dir.directory import RunDir
from medtune.run_dir.lock import lock_folder
try:
    if sys.argv[2:]:
        RunDir(Path(sys.argv[1])).check(load_recipe("demo"), resume="resume" in sys.argv)
    print(lock_folder(Path(sys.argv[1])))
except RunDirError as error:
    print(error)
"""


@pytest.fixture(autouse=True)
def let_go():
    yield
    release_locks()


def another_process(folder, *words) -> str:
    command = [sys.executable, "-c", OTHER, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_another_process_is_kept_out_until_the_lock_is_let_go(tmp_path):
    assert lock_folder(tmp_path) is True
    assert another_process(tmp_path) == (
        f"{tmp_path}: another medtune process works in this run directory; wait for it to end, or stop it"
    )
    release_locks()
    # What it leaves of its file means nothing.
    assert another_process(tmp_path) == "True"
    assert lock_folder(tmp_path) is True


@pytest.mark.parametrize("words", [["check"], ["check", "resume"]])
def test_a_run_that_is_worked_in_is_not_called_one_to_continue(tmp_path, words):
    assert lock_folder(tmp_path) is True
    for name in ("data", "training"):  # from its first moment on
        assert another_process(tmp_path, *words).endswith("; wait for it to end, or stop it")
        (tmp_path / name).mkdir()
    release_locks()
    assert ": not empty" in another_process(tmp_path, *words)


def test_the_process_that_has_it_goes_in_again(tmp_path):
    folder, other = tmp_path / "run", tmp_path / "other"
    for path in (folder, other):
        path.mkdir()
    assert lock_folder(folder) is True
    assert lock_folder(tmp_path / "other" / ".." / "run") is False
    assert lock_folder(other) is True
    assert locked_folders() == [folder.resolve(), other.resolve()]
    release_locks()
    assert locked_folders() == []


def test_a_folder_that_was_deleted_and_made_again_is_locked_again(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    assert lock_folder(folder) is True
    (folder / LOCK_NAME).unlink()
    assert lock_folder(folder) is True


def test_of_several_processes_of_one_training_the_first_holds_it_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert lock_folder(tmp_path) is False
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(
        RunDirError, match=r": cannot be locked \(Is a directory\); choose a folder that can be written"
    ):
        lock_folder(tmp_path)
