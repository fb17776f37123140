"""Room on a disk, asked for before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medtune.errors import DiskError
from medtune.storage.writing import nearest_folder, require_room


def test_the_nearest_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path
    assert str(nearest_folder(Path("runs/demo"))) == str(tmp_path)


def test_room_is_that_of_the_nearest_folder(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    require_room(tmp_path / "a" / "b", free // 2, "--to")
    with pytest.raises(DiskError, match=r"a: \d+\.\d GB are to be written and \d+\.\d GB are free; make room"):
        require_room(tmp_path / "a", free * 2, "--to")
