"""A stream of rows gives what memory gives, wherever its pieces begin and however many processes read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from large_rows import configure, refused, require_same, streamed, varied_rows, write_jsonl, write_parquet
from medtune.data.large import arrays, preparation, reading, similar, source_files
from medtune.errors import DiskError


@pytest.fixture(params=["whole", "in small pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, parts and batches so small that rows of a group are in many of them."""
    if request.param == "whole":
        return
    monkeypatch.setattr(source_files, "PIECE_BYTES", 2000)
    monkeypatch.setattr(reading, "BATCH_ROWS", 3)
    monkeypatch.setattr(arrays, "BLOCK", 7)
    monkeypatch.setattr(similar, "PART", 300)
    monkeypatch.setattr(similar, "SHINGLED_ROWS", 5)
    monkeypatch.setattr(similar, "_PAIRS", 4)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("seed", range(3))
def test_jsonl_gives_what_memory_gives(tmp_path: Path, seed: int) -> None:
    found = require_same(configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows(seed=seed))), tmp_path)
    assert found.groups.searched.answers > 200
    assert found.groups.searched.not_compared == 0
    dropped = {rule for rule, count in found.report["source"].items() if rule.startswith("dropped") and count}
    assert {"dropped_short", "dropped_duplicate", "dropped_question_repeat"} <= dropped


@pytest.mark.usefixtures("pieces")
def test_parquet_gives_what_memory_gives(tmp_path: Path) -> None:
    rows = [{**row, "document_id": f"d{number // 3}"} for number, row in enumerate(varied_rows(120))]
    require_same(configure(write_parquet(tmp_path / "rows.parquet", rows, group=40), seed=5), tmp_path)


def test_ids_topics_sources_and_references(tmp_path: Path) -> None:
    rows = [
        {**row, "key": f"a rather long key {number % 7}-{number}", "focus": f"topic {number % 90}", "source": "web"}
        for number, row in enumerate(varied_rows(200))
    ]
    for row in rows[::9]:
        row["Answer"] = [row["Answer"], "Another reference, of some words, to the same question."]
    rows = [row for row in rows if row["Answer"]]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    require_same(configure(path, columns={"id": "key"}), tmp_path)


def test_a_folder_of_both_kinds(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = varied_rows(150)
    write_jsonl(folder / "a.jsonl", rows[:90])
    write_parquet(folder / "b.parquet", [{"question": r["Question"], "answer": r["Answer"]} for r in rows[90:]])
    require_same(configure(folder), tmp_path)


def test_a_column_that_comes_later_and_would_have_been_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "_LOOKED_AT", 50)
    rows = varied_rows(100)
    rows[120]["focus"] = "gout"
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    assert refused(path, tmp_path) == (
        "column 'focus', for the focus, is in later rows and not in the first; put a row that has it first, or leave "
        "it out with --set data.columns.focus=null"
    )
    rows[120]["unused"] = rows[120].pop("focus")
    require_same(configure(write_jsonl(path, rows)), tmp_path)


def test_no_room_on_the_disk_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "text_bytes", lambda files: 10**15)
    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows(20)))
    with pytest.raises(DiskError, match=r"4000000\.0 GB are to be written"), streamed(config, tmp_path):
        pass
    assert not (tmp_path / "work").exists()


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows(100)))

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "group_rows", interrupt)
        with pytest.raises(KeyboardInterrupt), streamed(config, tmp_path):
            pass
    require_same(config, tmp_path)
