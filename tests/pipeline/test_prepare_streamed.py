"""The data stage on a stream of rows: the files that memory gives, nothing left behind, and bounded training."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from command_line import medtune
from large_rows import varied_rows, write_jsonl
from medtune.data.large import preparation
from medtune.errors import RunDirError
from medtune.run_dir import artefacts
from medtune.run_dir.directory import RunDir
from stopping import small_recipe as recipe
from tiny_model import Tiny

PARTS = ("train", "validation", "test")


def prepare(tiny: Tiny, folder: Path, name: str, **data: Any) -> Path:
    (folder / name).mkdir()
    path = recipe(folder / name, tiny.path, data={"source": str(folder / "rows.jsonl"), **data})
    medtune("data", "prepare", path, "--run-dir", folder / name / "run")
    return folder / name / "run"


def test_the_files_are_those_of_memory(tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = varied_rows(200)
    # One prompt that no limit fits, and references as a list.
    rows[3]["Question"], rows[4]["Answer"] = "long " * 3000, ["One answer of five words.", "Another one of five words."]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    memory, stream = prepare(tiny, tmp_path, "memory"), prepare(tiny, tmp_path, "stream", stream=True)
    for part in PARTS:
        assert (
            pq.read_table(stream / f"data/{part}.parquet").to_pylist()
            == pq.read_table(memory / f"data/{part}.parquet").to_pylist()
        )
        assert RunDir.open(stream).read_split(part) == RunDir.open(memory).read_split(part)

    def lines(run: Path) -> list[str]:
        return sorted((run / "data/dropped.jsonl").read_text(encoding="utf-8").splitlines())

    assert lines(stream) == lines(memory)
    assert {file.name for file in (stream / "data").iterdir()} == {file.name for file in (memory / "data").iterdir()}
    said = capfd.readouterr().err
    assert "rows.jsonl: 0.0 GB in 1 file, read as a stream, with few rows in memory at a time" in " ".join(said.split())
    report = json.loads((stream / "data/report.json").read_text(encoding="utf-8"))
    assert report["rows"] == json.loads((memory / "data/report.json").read_text(encoding="utf-8"))["rows"]


def test_a_killed_stage_starts_clean(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "rows.jsonl", varied_rows(60))
    path = recipe(tmp_path, tiny.path, data={"source": str(tmp_path / "rows.jsonl"), "stream": True})
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "group_rows", lambda *arguments: os.kill(os.getpid(), signal.SIGINT))
        medtune("data", "prepare", path, "--run-dir", run, status=75)
    assert not list((run / "data").iterdir())
    # What a kill leaves, which cleans nothing up.
    left = run / "data" / ".streamed-a1b2c3d4"
    left.mkdir()
    (left / "all.ids").write_bytes(b"12345678")
    medtune("data", "prepare", path, "--run-dir", run, "--resume")
    assert not list((run / "data").glob(".*"))
    assert RunDir.open(run).read_split("test")


def test_more_training_rows_than_memory_holds(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))
    monkeypatch.setattr(artefacts, "MOST_READ_ROWS", 40)
    run = prepare(tiny, tmp_path, "stream", stream=True)
    rows = pq.read_metadata(run / "data/train.parquet").num_rows
    line = (
        f"the {rows} training rows (0.0 GB) are more than training holds; take a sample with --set data.train_limit=20"
    )
    assert line in " ".join(capfd.readouterr().err.split())
    assert line in json.loads((run / "data/report.json").read_text(encoding="utf-8"))["warnings"]
    with pytest.raises(
        RunDirError, match=r"rows \(0\.0 GB\) are more than are held in memory; take a sample with --set"
    ):
        RunDir.open(run).read_split("train")


def test_the_audit_of_a_stream(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))
    out = tmp_path / "audit.json"
    medtune("data", "audit", path, "--set", "data.stream=true", "--out", out)
    audit = json.loads(out.read_text(encoding="utf-8"))
    assert len(audit["not_computed"]) == 2
    said = capfd.readouterr().out
    assert "random" not in said.split("Share of the test rows")[1]
