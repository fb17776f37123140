"""Which sources are streamed, and which are refused with the way to read them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from large_rows import configure, varied_rows, write_jsonl, write_parquet
from medtune.data.large import source_files
from medtune.data.large.source_files import open_file, pieces_of, streamed_files
from medtune.errors import DataError


def test_large_files_are_streamed_and_small_ones_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_jsonl(tmp_path / "a.jsonl", varied_rows(50)), write_parquet(tmp_path / "b.parquet", varied_rows(50))]
    for path in paths:
        config = configure(path, stream="auto")
        assert streamed_files(config.data) == []
        assert streamed_files(configure(path).data) == [path]
    assert streamed_files(configure(tmp_path).data) == paths
    monkeypatch.setattr(source_files, "MAX_TABLE_BYTES", 10_000)
    for path in paths:
        assert streamed_files(configure(path, stream="auto").data) == [path]
        assert streamed_files(configure(path, stream=False).data) == []
    monkeypatch.setattr(source_files, "MAX_TABLE_BYTES", 10**9)
    monkeypatch.setattr(source_files, "MAX_TABLE_ROWS", 100)
    assert streamed_files(configure(paths[1], stream="auto").data) == [paths[1]]


def refused(config: Any) -> str:
    def open_all() -> None:
        for path in streamed_files(config.data):
            open_file(path, config.data)

    with pytest.raises(DataError) as caught:
        open_all()
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{config.data.named}: ")


WHOLE = "read it whole, in memory, with --set data.stream=false"


def test_what_is_not_streamed_is_told(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("Question,Answer\nq,a\n", encoding="utf-8")
    assert refused(configure(table)) == f"only Parquet and JSONL files, and folders of these, are streamed; {WHOLE}"
    path = write_jsonl(tmp_path / "rows.jsonl", varied_rows(10))
    assert refused(configure(path, test_source=str(path))) == f"with data.test_source, rows are not streamed; {WHOLE}"
    talk = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]
    path = write_jsonl(tmp_path / "talks.jsonl", talk)
    assert refused(configure(path)) == f"conversations are not streamed; give questions and answers, or {WHOLE}"
    path.write_text('[{"Question": "q", "Answer": "a"}]', encoding="utf-8")
    assert refused(configure(path)) == "one array is not streamed; write one object a line"
    path.write_bytes('{"Question": "é", "Answer": "a"}'.encode("cp1252"))
    assert refused(configure(path)).startswith("not UTF-8 text (")
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    assert refused(configure(path)).startswith("not a readable Parquet file (")


@pytest.mark.parametrize("size", [1, 10, 50, 1000])
def test_pieces_of_jsonl_end_at_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", size)
    path = tmp_path / "rows.jsonl"
    lines = [f'{{"number": "{"é" * number}"}}\n' for number in range(30)]
    data = "".join(lines).encode()[:-1]
    path.write_bytes(data)
    pieces = list(pieces_of(path))
    assert next((piece.start, piece.stop) for piece in pieces)[0] == 0
    assert all(before.stop == after.start for before, after in itertools.pairwise(pieces))
    assert b"".join(data[piece.start : piece.stop] for piece in pieces) == data
    assert all(data[piece.start - 1 : piece.start] in (b"\n", b"") for piece in pieces)
    assert [piece.first for piece in pieces] == [data[: piece.start].count(b"\n") for piece in pieces]
    assert sum(piece.rows for piece in pieces) == len(lines)
