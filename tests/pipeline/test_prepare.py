"""The data stage from the command line: what stands in the run directory, what is said, and what training refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from command_line import medtune
from stopping import small_recipe as recipe
from tiny_model import Tiny


def test_a_run_holds_its_audit_and_what_was_dropped(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, tiny.path)
    with (tmp_path / "rows.csv").open("a", encoding="utf-8") as file:
        file.write("causes,What causes hiccups  ?,A spasm.\n")
    medtune("data", "prepare", path, "--run-dir", tmp_path / "run")
    folder = tmp_path / "run" / "data"
    assert {file.name for file in folder.iterdir()} == {
        "train.parquet", "validation.parquet", "test.parquet", "report.json", "audit.json", "dropped.jsonl",
    }  # fmt: skip
    audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert audit["lengths"]["tokenizer"] == str(tiny.path)
    assert audit["split"]["rows"] == {"train": 32, "validation": 4, "test": 4}
    (dropped,) = [json.loads(line) for line in (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (dropped["rule"], dropped["raw_question"], dropped["raw_answer"]) == (
        "dropped_short", "What causes hiccups  ?", "A spasm.",
    )  # fmt: skip
    assert len(dropped["id"]) == 12
    row = pq.read_table(folder / "train.parquet").to_pylist()[0]
    assert row["raw_answer"] == row["answer"]
    assert row["template"] is False
    said = capfd.readouterr().err
    assert "normalised question" in said
    assert "leaks" not in said


def test_a_random_split_says_that_it_leaks(tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = recipe(tmp_path, tiny.path, data={"split": {"method": "random", "test": 0.3}})
    lines = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    again = [line.replace("causes,What causes", "symptoms,What are the symptoms of") for line in lines[1:]]
    (tmp_path / "rows.csv").write_text("\n".join([*lines, *again]) + "\n", encoding="utf-8")
    medtune("data", "prepare", path, "--run-dir", tmp_path / "run")
    said = " ".join(capfd.readouterr().err.split())
    assert "This split (random) leaks." in said
    assert "share their focus with a training row" in said
    leaking = json.loads((tmp_path / "run/data/audit.json").read_text(encoding="utf-8"))["leaking_test_rows"]
    assert leaking["focus"]
    test = {row["id"] for row in pq.read_table(tmp_path / "run/data/test.parquet").to_pylist()}
    assert set(leaking["focus"]) <= test


def test_validation_rows_taken_from_train_are_said(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path, tiny.path, data={"split": {"method": "column"}, "columns": {"split": "fold"}})
    header, *lines = (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()
    folds = ["test" if number % 4 == 0 else "train" for number in range(len(lines))]
    rows = [f"{line},{fold}" for line, fold in zip(lines, folds, strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join([f"{header},fold", *rows]) + "\n", encoding="utf-8")
    medtune("data", "prepare", path, "--run-dir", tmp_path / "run")
    assert "10 test" in (said := " ".join(capfd.readouterr().err.split()))
    assert "The source names no validation rows" in said
