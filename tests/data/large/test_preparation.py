"""A stream of rows gives what memory gives, wherever its pieces begin and however many processes read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from large_rows import all_rows, configure, require_same, streamed, varied_rows, write_jsonl, write_parquet
from medtune.data.large import arrays, dealing, preparation, reading, similar, source_files
from medtune.data.preparation import prepare_data
from medtune.errors import DataError, DiskError


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


@pytest.mark.parametrize(
    "data",
    [
        {"split": {"method": "random"}},
        {"split": {"most_rows": 20}},
        {"split": {"method": "random", "most_rows": 7}},
        {"split": {"method": "column"}, "columns": {"split": "part"}},
        {"split": {"method": "column", "most_rows": 9}, "columns": {"split": "part"}},
        {"train_limit": 50},
        {"min_answer_words": 1, "markup": "keep", "html": "keep"},
    ],
)
def test_every_split_is_that_of_memory(tmp_path: Path, data: dict[str, Any]) -> None:
    parts = ("train", "Train", "dev", "test", "train")
    rows = [{**row, "part": parts[number % 5]} for number, row in enumerate(varied_rows(200))]
    require_same(configure(write_jsonl(tmp_path / "rows.jsonl", rows), **data), tmp_path)


def test_validation_is_taken_from_train_where_the_source_names_none(tmp_path: Path) -> None:
    rows = [{**row, "part": "test" if number % 4 == 0 else "train"} for number, row in enumerate(varied_rows(200))]
    config = configure(
        write_jsonl(tmp_path / "rows.jsonl", rows), split={"method": "column"}, columns={"split": "part"}
    )
    assert require_same(config, tmp_path).report["split"]["validation_from_train"]


def test_a_folder_of_both_kinds(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = varied_rows(150)
    write_jsonl(folder / "a.jsonl", rows[:90])
    write_parquet(folder / "b.parquet", [{"question": r["Question"], "answer": r["Answer"]} for r in rows[90:]])
    require_same(configure(folder), tmp_path)


def test_the_number_of_processes_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 8000)
    require_same(configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))), tmp_path, workers=2)


def test_a_pool_smaller_than_the_source_keeps_groups_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealing, "LEAST_POOL", 10)
    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows(400)), split={"most_rows": 12})
    with streamed(config, tmp_path) as found:
        rows, codes = all_rows(found), found.dealt.codes.tolist()
        assert found.dealt.pool < len(rows) * 0.8
    assert len({(row.group, code) for row, code in zip(rows, codes, strict=True)}) == len({row.group for row in rows})
    assert 6 <= codes.count(1) <= 13
    assert 6 <= codes.count(2) <= 13


def test_dropped_rows_are_those_of_memory(tmp_path: Path) -> None:
    from medtune.data.large.gathering import write_dropped

    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows()))
    wanted = prepare_data(config).dropped
    with streamed(config, tmp_path) as found:
        write_dropped(found.found, tmp_path / "dropped")
    lines = [json.loads(line) for line in (tmp_path / "dropped").read_text(encoding="utf-8").splitlines()]
    assert sorted((line["rule"], line["id"], line["raw_question"], line["raw_answer"]) for line in lines) == sorted(
        (rule, pair.id, pair.raw_question, pair.raw_answer) for rule, pair in wanted
    )


def refused(path: Path, tmp_path: Path, workers: int = 1, **data: Any) -> str:
    with pytest.raises(DataError) as caught, streamed(configure(path, **data), tmp_path, workers):
        pass
    assert not list((tmp_path / "work").iterdir())
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_line_is_told_with_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 4000)
    path = write_jsonl(tmp_path / "rows.jsonl", varied_rows(100))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[:80], "no JSON\n", *lines[80:]]), encoding="utf-8")
    assert refused(path, tmp_path, workers) == "line 81 is not JSON (Expecting value); one object a line is needed"


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


def test_an_id_of_two_rows_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "key": f"k{number % 150}"} for number, row in enumerate(varied_rows(100)) if row["Answer"]]
    line = refused(write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path, columns={"id": "key"})
    assert line.endswith(" is in two rows; ids must be unique, or leave data.columns.id out")


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


def test_answers_beyond_the_limit_are_joined_where_they_are_equal_alone(tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows()), near_duplicate_limit=100)
    with streamed(config, tmp_path) as found:
        searched = found.groups.searched
        assert (searched.answers, searched.pairs) == (0, 0)
        (line,) = found.report["notes"][-1:]
    assert line == (
        f"near-duplicates are not looked for among {searched.not_searched:,} different answers; equal ones alone join; "
        f"--set data.near_duplicate_limit={searched.not_searched} looks for them"
    )


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
