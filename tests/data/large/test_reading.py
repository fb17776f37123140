"""Rows of one piece: what cannot be read is told with its place in the whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from large_rows import refused, varied_rows, write_jsonl
from medtune.data.large import source_files


def test_a_truncated_last_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 4000)
    path = write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert refused(path, tmp_path).startswith("line 183 is not JSON (Unterminated string")


def test_a_value_that_is_no_text_is_told_with_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 4000)
    rows = varied_rows(100)
    rows[90]["Answer"] = {"text": "an object"}
    line = refused(write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path)
    assert line == "row 90: answer is a dict, not text; convert that column to text"
