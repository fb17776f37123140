"""How many rows came and how many were left out: one line, a warning from 2 % on, and a stop for short answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medtune.config.schema import Config, parse_config
from medtune.data.left_out import reading_line, reading_warning
from medtune.data.preparation import prepare_data
from medtune.errors import DataError

KEPT = {"rows_read": 98, "rows_kept": 98, "unanswered": 0}


def configure(path: Path, **data: Any) -> Config:
    values = {"model": {"base": "owner/model"}, "data": {"source": str(path), **data}}
    return parse_config(values, origin="test")


def write(path: Path, answers: list[str]) -> Path:
    rows = [{"Question": f"Question {n} ?", "Answer": answer} for n, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("counts", "line", "share"),
    [
        (KEPT, "rows.csv: 98 rows, all kept", None),
        (
            KEPT | {"unanswered": 2},
            "rows.csv: 100 rows, 98 kept; left out: 2 without an answer", None,
        ),
        (
            KEPT | {"unanswered": 2, "too_few_cells": 1, "too_many_cells": 1, "rows_read": 100, "dropped_short": 2},
            "rows.csv: 104 rows, 98 kept; left out: 2 without an answer, 1 with too few cells, 1 with too many cells, "
            "2 with too short an answer", "5.8%",
        ),
        (
            KEPT | {"rows_read": 102, "dropped_duplicate": 1, "dropped_question_repeat": 1, "dropped_empty": 2},
            "rows.csv: 102 rows, 98 kept; left out: 2 without a question or an answer, 1 with the question for an "
            "answer, 1 that repeat an earlier row", "3.9%",
        ),
    ],
)  # fmt: skip
def test_what_came_and_what_was_left_out(counts: dict[str, int], line: str, share: str | None) -> None:
    assert reading_line("rows.csv", counts) == line
    expected = None if share is None else f"{share} of the rows were left out. {line}."
    assert reading_warning("rows.csv", counts) == expected


def test_answers_of_an_exam_are_not_dropped_in_silence(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*["Aspirin"] * 4, *[f"A long answer of six words {n}." for n in range(3)]])
    with pytest.raises(DataError) as caught:
        prepare_data(configure(path))
    assert str(caught.value) == (
        f"{path}: 4 of its 7 answers have fewer than 5 words; keep short answers with --set data.min_answer_words=1, "
        "or drop them with --set data.min_answer_words=5"
    )
    kept = prepare_data(configure(path, min_answer_words=1), must_split=False)
    dropped = prepare_data(configure(path, min_answer_words=5), must_split=False)
    assert (len(kept.rows), len(dropped.rows)) == (7, 3)
    assert dropped.report["warnings"] == [
        f"57.1% of the rows were left out. {path}: 7 rows, 3 kept; left out: 4 with too short an answer."
    ]


def test_words_of_a_script_without_blanks_are_its_characters(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl", ["痛风是关节炎", "缺铁", *[f"A long answer of six words {n}." for n in range(3)]]
    )
    assert next(row.answer for row in prepare_data(configure(path), must_split=False).rows) == "痛风是关节炎"


def test_two_rows_cannot_be_split_and_can_be_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ["One answer of six good words.", "Another one that has nothing alike."])
    with pytest.raises(DataError, match="split is empty"):
        prepare_data(configure(path))
    prepared = prepare_data(configure(path), must_split=False)
    assert prepared.not_split == "the validation split is empty (2 rows in all); give more rows or other shares"
