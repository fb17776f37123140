"""Rows whose prompts alone are too long are left out of every split and counted; they stop nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from chat_tokenizers import chatml
from command_line import medtune
from medtune.config.schema import Config, parse_config
from medtune.data.near_duplicates import SimilarAnswers
from medtune.data.preparation import Prepared
from medtune.data.prompts import PromptRenderer
from medtune.data.room import RULE, leave_out_unfit, too_long
from medtune.errors import DataError
from medtune.records import QAPair, Split, Turn
from stopping import small_recipe
from tiny_model import Tiny

LONG = "pain " * 400


@pytest.fixture
def renderer() -> PromptRenderer:
    return PromptRenderer(chatml())


def row(id: str, question: str = "What is gout ?") -> QAPair:
    return QAPair(id, "", question, "A disease of the joints.")


def prepared(train: list[QAPair], validation: list[QAPair], test: list[QAPair]) -> Prepared:
    split = Split(tuple(train), tuple(validation), tuple(test))
    return Prepared(split, {}, {}, [*train, *validation, *test], SimilarAnswers([], []), [])


def configure(**training: object) -> Config:
    values = {"model": {"base": "owner/model"}, "data": {"source": "rows.csv"}, "training": training}
    return parse_config({**values, "generation": {"max_new_tokens": 16}}, origin="test")


@pytest.mark.parametrize("overlong", ["cut", "drop"])
def test_each_split_has_its_own_limit(renderer: PromptRenderer, overlong: str) -> None:
    config = configure(max_length=128, overlong=overlong)
    rows = [row("short"), row("long", LONG)]
    left = leave_out_unfit(prepared(rows, [row("v")], [*rows, row("t")]), renderer, config, positions=256)
    assert [[pair.id for pair in part] for part in (left.split.train, left.split.validation, left.split.test)] == [
        ["short"], ["v"], ["short", "t"],
    ]  # fmt: skip
    assert left.report[RULE] == {"train": 1, "test": 1}
    assert left.report["rows"] == {"train": 1, "validation": 1, "test": 2}
    assert [(rule, pair.id) for rule, pair in left.dropped] == [(RULE, "long")]
    assert left.report["warnings"] == [
        "33.3% of the split's rows are lost: rows left out because their prompts are too long for training.max_length "
        "and the model's context and generation.max_new_tokens: 1 train, 1 test."
    ]


def test_turns_before_the_question_count_in_the_test_and_are_left_out_in_training(renderer: PromptRenderer) -> None:
    talk = replace(row("talk"), turns=(Turn("user", LONG), Turn("assistant", "Where?")))
    system = replace(row("system"), turns=(Turn("system", LONG),))
    rows = [row("short"), talk, system]
    left = leave_out_unfit(prepared(rows, [row("v")], rows), renderer, configure(max_length=128), positions=256)
    assert [[pair.id for pair in part] for part in (left.split.train, left.split.test)] == [
        ["short", "talk"],
        ["short"],
    ]
    assert left.split.train[1] == talk


def test_where_all_fit_nothing_changes(renderer: PromptRenderer) -> None:
    rows = prepared([row("a")], [row("b")], [row("c", LONG)])
    assert leave_out_unfit(rows, renderer, configure(max_length=128), positions=None) is rows


def test_a_split_without_another_row_is_refused(renderer: PromptRenderer) -> None:
    rows = prepared([row("a", LONG)], [row("b")], [row("c")])
    with pytest.raises(DataError) as caught:
        leave_out_unfit(rows, renderer, configure(max_length=128), positions=None)
    assert str(caught.value) == (
        "data: each of the 1 train prompts leaves no room for an answer; raise training.max_length or shorten the "
        "questions"
    )


def test_only_prompts_of_more_tokens_are_too_long(renderer: PromptRenderer) -> None:
    tokens = len(renderer.prompt_ids(LONG))
    assert too_long(renderer, [row("long", LONG)], tokens) == set()
    assert too_long(renderer, [row("long", LONG)], tokens - 1) == {"long"}


def test_one_question_of_200_000_characters_stops_no_run(
    tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = small_recipe(tmp_path, tiny.path)
    with (tmp_path / "rows.csv").open("a", encoding="utf-8") as file:
        file.write(f"causes,{'hiccups ' * 25_000},A spasm of the diaphragm below the lungs.\n")
    medtune("run", path, "--run-dir", tmp_path / "run", "--set", "generation.max_new_tokens=8")
    said = capfd.readouterr()
    data = tmp_path / "run" / "data"
    report = json.loads((data / "report.json").read_text(encoding="utf-8"))
    assert sum(report[RULE].values()) == 1
    assert "rows left out because their prompts are too long for" in said.err
    rows = [json.loads(line) for line in (data / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["rule"] for entry in rows] == [RULE]
    ids = {
        one["id"]
        for part in ("train", "validation", "test")
        for one in pq.read_table(data / f"{part}.parquet").to_pylist()
    }
    assert rows[0]["id"] not in ids
    assert "Warning: 2." in said.out  # of 41 rows
    assert "because their prompts are too long" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
