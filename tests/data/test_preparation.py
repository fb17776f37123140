from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from medtune.config.recipes import load_recipe
from medtune.config.schema import Config, parse_config
from medtune.data.cleaning import normalize_question
from medtune.data.preparation import Prepared, prepare_data
from medtune.data.sources import DEMO_SOURCE
from medtune.data.splits import ENOUGH_GROUPS, sample_rows
from medtune.errors import DataError
from medtune.records import QAPair

PARTS = ("train", "validation", "test")


def configure(source: Path | str, **data: Any) -> Config:
    seed = data.pop("seed", 0)
    values = {"seed": seed, "model": {"base": "owner/model"}, "data": {"source": str(source), **data}}
    return parse_config(values, origin="test")


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(count: int, **more: str) -> list[dict[str, str]]:
    return [{"key": f"k{i}", "Question": f"Q{i} ?", "Answer": answer(i), **more} for i in range(count)]


def answer(number: int | str) -> str:
    return f"One two three four {number}."


def ids(rows: Iterable[QAPair]) -> set[str]:
    return {row.id for row in rows}


NOTHING_DONE = {
    "line_ends_unified": 0, "damage_removed": 0, "characters_composed": 0, "blanks_collapsed": 0,
    "question_marks_merged": 0, "question_repeat_removed": 0, "dropped_empty": 0, "dropped_question_repeat": 0,
    "dropped_short": 0, "dropped_duplicate": 0,
}  # fmt: skip


def test_the_demo_rows_are_prepared() -> None:
    prepared = prepare_data(load_recipe("demo"))
    assert prepared.report == {
        "cleaning_version": 3,
        "source": {"unanswered": 0, "rows_read": 466, **NOTHING_DONE, "rows_kept": 466, "focus": "given"},
        "split": {"method": "grouped"},
        "rows": {"train": 257, "validation": 46, "test": 163},
    }
    assert prepared.provenance["source"] == DEMO_SOURCE
    assert prepared.provenance["revision"] is None
    assert len(prepared.provenance["fingerprint"]) == 64
    focuses = [{row.focus for row in getattr(prepared.split, name)} for name in PARTS]
    assert sum(map(len, focuses)) == len(set().union(*focuses))
    assert prepare_data(load_recipe("demo")) == prepared


@pytest.mark.parametrize("seed", range(5))
def test_the_demo_tests_on_topics_enough_for_a_bootstrap(seed: int) -> None:
    prepared = prepare_data(load_recipe("demo", [f"seed={seed}"]))
    assert len({row.group for row in prepared.rows}) == len({row.focus for row in prepared.rows}) == 102
    assert not any(row.template for row in prepared.rows)
    rows = Counter(row.group for row in prepared.split.test).values()
    assert len(rows) >= ENOUGH_GROUPS
    # Rows that share a topic say less than as many of their own: what they amount to is Kish's effective number.
    assert sum(rows) ** 2 / sum(n * n for n in rows) >= 25


def test_every_row_that_leaves_is_counted_and_kept_aside(tmp_path: Path) -> None:
    rows = numbered(40)
    rows += [{"Question": "Q0 ?", "Answer": f"{answer(0)} "}, {"Question": "No answer ?", "Answer": " "}]
    rows += [{"Question": "\u0000", "Answer": "No question."}, {"Question": "Short ?", "Answer": "Too short."}]
    prepared = prepare_data(configure(write_rows(tmp_path / "rows.jsonl", rows)))
    assert prepared.report["source"] == {
        "unanswered": 1, "rows_read": 43, **NOTHING_DONE, "damage_removed": 1, "blanks_collapsed": 1,
        "dropped_empty": 1, "dropped_duplicate": 1, "dropped_short": 1, "rows_kept": 40, "focus": "absent",
    }  # fmt: skip
    assert prepared.report["rows"] == {"train": 32, "validation": 4, "test": 4}
    assert [(rule, row.raw_question, row.raw_answer) for rule, row in prepared.dropped] == [
        ("unanswered", "No answer ?", ""),
        ("dropped_duplicate", "Q0 ?", f"{answer(0)} "),
        ("dropped_empty", "\x00", "No question."),
        ("dropped_short", "Short ?", "Too short."),
    ]
    assert ids(prepared.rows).isdisjoint(row.id for _, row in prepared.dropped)


def test_rows_and_what_answers_alike_are_of_one_order(tmp_path: Path) -> None:
    rows = [*numbered(20), {"Question": "Last ?", "Answer": answer(3).upper()}]
    prepared = prepare_data(configure(write_rows(tmp_path / "rows.jsonl", rows)))
    answers = dict(zip((row.question for row in prepared.rows), prepared.similar.answer_of, strict=True))
    assert answers["Last ?"] == answers["Q3 ?"]
    assert len(set(answers.values())) == 20
    groups = {row.question: row.group for row in prepared.rows}
    assert groups["Last ?"] == groups["Q3 ?"]


def test_a_focus_is_read_where_the_source_gives_none(tmp_path: Path) -> None:
    rows = [
        {"Question": f"{start} disease {i} ?", "Answer": answer(f"{start} {i}")}
        for i in range(20) for start in ("What causes", "How to prevent")
    ]  # fmt: skip
    prepared = prepare_data(configure(write_rows(tmp_path / "rows.jsonl", rows)))
    assert prepared.report["source"]["focus"] == "read from the questions"
    assert len({row.group for row in prepared.rows}) == 20
    assert {row.focus for row in prepared.rows} == {f"disease {i}" for i in range(20)}


def test_a_random_split_is_one_of_rows(tmp_path: Path) -> None:
    rows = numbered(100)
    for number, row in enumerate(rows):
        row["focus"] = f"f{number // 10}"
    path = write_rows(tmp_path / "rows.jsonl", rows)
    prepared = prepare_data(configure(path, split={"method": "random"}))
    assert prepared.report["split"] == {"method": "random"}
    assert prepared.report["rows"] == {"train": 80, "validation": 10, "test": 10}
    assert {row.group for row in prepared.split.test} & {row.group for row in prepared.split.train}
    assert len({row.group for row in prepared.rows}) == 10


@pytest.mark.parametrize("validation", ["val", "train"])
def test_a_column_splits(tmp_path: Path, validation: str) -> None:
    rows = [
        {**row, "fold": "test" if i < 5 else validation if i < 10 else "train"} for i, row in enumerate(numbered(50))
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    prepared = prepare_data(configure(path, split={"method": "column"}, columns={"split": "fold"}))
    assert {row.question for row in prepared.split.test} == {f"Q{i} ?" for i in range(5)}
    assert prepared.report["split"] == {"method": "column", "validation_from_train": validation == "train"}
    assert len(prepared.split.validation) == 5 if validation == "val" else 4 <= len(prepared.split.validation) <= 5


def test_a_column_that_names_no_test_rows_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", numbered(20, fold="train"))
    with pytest.raises(DataError, match="the test split is empty"):
        prepare_data(configure(path, split={"method": "column"}, columns={"split": "fold"}))


def test_the_split_follows_the_ids_and_not_the_order_of_the_file(tmp_path: Path) -> None:
    rows = numbered(60)
    mixed = random.Random(3).sample(rows, len(rows))
    first, second = (
        prepare_data(configure(write_rows(tmp_path / f"{n}.jsonl", r), columns={"id": "key"})).split
        for n, r in enumerate((rows, mixed))
    )
    assert first == second


def test_a_training_limit_takes_a_nested_sample_and_leaves_the_rest(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", numbered(100))
    whole, half, few = (prepare_data(configure(path, train_limit=limit)).split for limit in (None, 40, 5))
    assert [len(split.train) for split in (whole, half, few)] == [80, 40, 5]
    assert whole.train[:40] == half.train
    assert half.train[:5] == few.train
    assert whole.test == half.test == few.test
    assert whole.validation == few.validation


def test_the_sample_follows_the_seed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", numbered(100))
    train = prepare_data(configure(path, seed=5)).split.train
    assert list(train) == sample_rows(train, None, 5) != sample_rows(train, None, 0)


def test_a_limit_beyond_the_rows_takes_them_all(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", numbered(20))
    assert len(prepare_data(configure(path, train_limit=1000)).split.train) == 16


def test_another_seed_makes_another_split(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", numbered(100))
    first, second = (prepare_data(configure(path, seed=seed)).split for seed in (0, 1))
    assert ids(first.test) != ids(second.test)


# A test source ------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_test_source(tmp_path: Path) -> Config:
    source = numbered(50, focus="")
    source[0] |= {"focus": "Gout"}
    source[1] |= {"focus": "gout", "Question": "Q2 ?"}  # and so row 2 goes with it
    test = [
        {"Question": "About gout ?", "Answer": answer("T0"), "focus": "GOUT "},
        {"Question": "q7", "Answer": answer("T1"), "focus": ""},
        {"Question": "Q9 ?", "Answer": answer(9), "focus": ""},  # question and answer of a training row
        {"Question": "New ?", "Answer": answer("T3"), "focus": ""},
        {"Question": "Same answer ?", "Answer": answer(11), "focus": ""},
        {"Question": "Short ?", "Answer": "T4.", "focus": ""},  # the same rules clean it
        {"Question": "New ?", "Answer": "", "focus": ""},
    ]
    return configure(
        write_rows(tmp_path / "rows.jsonl", source),
        test_source=str(write_rows(tmp_path / "test.jsonl", test)),
        split={"validation": 0.2, "test": 0.5},
    )


def test_a_test_source_takes_the_place_of_the_test_split(with_test_source: Config) -> None:
    prepared = prepare_data(with_test_source)
    assert [row.answer for row in prepared.split.test] == [answer(name) for name in ("T0", "T1", 9, "T3", 11)]
    assert prepared.report["test_source"]["unanswered"] == 1
    assert prepared.report["test_source"]["dropped_short"] == 1
    assert [(rule, row.raw_answer) for rule, row in prepared.dropped] == [("unanswered", ""), ("dropped_short", "T4.")]
    assert prepared.report["removed_for_test_source"] == 6
    assert prepared.report["rows"] == {"train": 35, "validation": 9, "test": 5}
    assert prepared.provenance["test_source"] == with_test_source.data.test_source
    assert prepared.provenance["test_fingerprint"] != prepared.provenance["fingerprint"]


def test_nothing_of_the_test_source_is_left_in_training(with_test_source: Config) -> None:
    split = prepare_data(with_test_source).split
    seen = {row.answer for row in (*split.train, *split.validation)}
    assert seen == {answer(i) for i in range(50)} - {answer(i) for i in (0, 1, 2, 7, 9, 11)}
    # The row that is in both sources gets another id; the others keep theirs.
    assert [row.answer for row in split.test if row.id.startswith("test-")] == [answer(9)]


def test_a_test_source_that_is_the_source_leaves_nothing(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", numbered(20))
    with pytest.raises(DataError, match="the train split is empty"):
        prepare_data(configure(path, test_source=str(path)))


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (numbered(1), "split is empty (1 rows in all)"),
        (numbered(30, focus="gout"), "the validation split is empty (30 rows in all)"),
        ([{"Question": "", "Answer": answer(i)} for i in range(30)], "none of its 30 rows (dropped empty: 30)"),
        ([{"Question": "Q ?", "Answer": "Short."}] * 30, "none of its 30 rows (dropped short: 30)"),
        ([{"Question": "Q ?", "Answer": answer(1)}] * 30, "split is empty (1 rows in all)"),
        ([{"Question": "Q ?", "Answer": " "}] * 3, "no rows with an answer (3 without)"),
    ],
    ids=["one row", "one group", "no questions", "short answers", "one row many times", "no answers"],
)
def test_rows_that_cannot_be_split(tmp_path: Path, rows: list[dict[str, str]], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare_data(configure(write_rows(tmp_path / "rows.jsonl", rows)))
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_test_source_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", numbered(20))
    with pytest.raises(DataError, match=r"absent\.csv: no such file or folder"):
        prepare_data(configure(path, test_source="absent.csv"))


# MedQuAD ------------------------------------------------------------------------------------------------------------


def test_the_hub_shape_of_medquad_has_no_question_on_two_sides(hub_prepared: Prepared) -> None:
    questions = [{normalize_question(row.question) for row in getattr(hub_prepared.split, name)} for name in PARTS]
    assert sum(map(len, questions)) == len(set().union(*questions)) == 13_600
    assert hub_prepared.report["source"]["focus"] == "read from the questions"


def test_a_small_training_sample_is_of_all_kinds(medquad_prepared: Prepared) -> None:
    sample = sample_rows(medquad_prepared.split.train, 100, 0)
    assert len({row.qtype for row in sample}) >= 8
    assert len({row.source for row in sample}) >= 5


def test_the_xml_sample_of_medquad_is_prepared(shared_data: Path) -> None:
    prepared = prepare_data(configure(shared_data / "medquad_xml_sample"))
    assert prepared.report["source"]["unanswered"] == 101
    assert prepared.report["source"]["rows_read"] == 218
    documents = [{row.document_id for row in getattr(prepared.split, name)} for name in PARTS]
    assert sum(map(len, documents)) == len(set().union(*documents)) == 35
