"""Splits of rows on disk are those of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from large_rows import all_rows, configure, require_same, streamed, varied_rows, write_jsonl
from medtune.data.large import dealing


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


def test_a_pool_smaller_than_the_source_keeps_groups_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealing, "LEAST_POOL", 10)
    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows(400)), split={"most_rows": 12})
    with streamed(config, tmp_path) as found:
        rows, codes = all_rows(found), found.dealt.codes.tolist()
        assert found.dealt.pool < len(rows) * 0.8
    assert len({(row.group, code) for row, code in zip(rows, codes, strict=True)}) == len({row.group for row in rows})
    assert 6 <= codes.count(1) <= 13
    assert 6 <= codes.count(2) <= 13
