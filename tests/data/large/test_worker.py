"""What a process that reads pieces answers on its stdout, line by line."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from large_rows import configure, write_jsonl
from medtune.data.large import source_files, worker
from medtune.data.large.reading import Done, Job
from medtune.data.large.source_files import open_file, pieces_of

ROWS = [{"Question": f"What is topic {number}?", "Answer": f"An answer about {number}."} for number in range(6)]


def told(jobs: list[Job], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(asdict(job)) + "\n" for job in jobs)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    worker.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def jobs_of(path: Path, folder: Path) -> list[Job]:
    file = open_file(path, configure(path).data)
    return [
        Job(number, piece, str(folder), file.names, file.present, "keep", "keep", 1, False)
        for number, piece in enumerate(pieces_of(path))
    ]


def test_each_piece_is_told_with_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 200)
    jobs = jobs_of(write_jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path)
    lines = told(jobs, monkeypatch, capsys)
    done = [Done.from_json(line["done"]) for line in lines if "done" in line]
    assert [one.number for one in done] == list(range(len(jobs)))
    assert len(jobs) > 1
    assert sum(one.kept for one in done) == sum(line.get("rows", 0) for line in lines) == len(ROWS)
    assert [pq.read_table(job.file("rows")).num_rows for job in jobs] == [one.kept for one in done]


def test_a_piece_that_cannot_be_read_is_told_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"Question": "q", "Answer": ["a", 2]}\n', encoding="utf-8")
    (bad,) = jobs_of(tmp_path / "bad.jsonl", tmp_path)
    (good,) = jobs_of(write_jsonl(tmp_path / "rows.jsonl", ROWS), tmp_path)
    first, *others = told([bad, good], monkeypatch, capsys)
    what, problem, _ = first["error"]
    assert what == str(tmp_path / "bad.jsonl")
    assert problem.startswith("row 0: answer ")
    assert others[-1]["done"]["kept"] == len(ROWS)
