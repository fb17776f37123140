"""Processes that read pieces beside each other change nothing, and tell what one of them cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest

from large_rows import configure, refused, require_same, varied_rows, write_jsonl
from medtune.data.large import source_files
from medtune.data.large.workers import MOST_WORKERS, worker_count


def test_the_number_of_processes_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 8000)
    require_same(configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))), tmp_path, workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_is_told_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 4000)
    path = write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:80], "no JSON\n", *lines[80:]]), encoding="utf-8")
    assert refused(path, tmp_path, workers) == "line 81 is not JSON (Expecting value); one object a line is needed"


def test_there_are_no_more_processes_than_cores_pieces_and_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    assert [worker_count(pieces) for pieces in (0, 1, 5, 100)] == [1, 1, 5, MOST_WORKERS]
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 3})
    assert worker_count(100) == 2
