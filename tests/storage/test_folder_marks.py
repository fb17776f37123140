"""Whose a temporary folder is: told by its mark, and by that alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from medtune.storage.writing import MARK_NAME, is_abandoned, mark_as_own


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
