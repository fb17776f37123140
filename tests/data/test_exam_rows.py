"""Exam questions: options and abstracts below the question, short answers, and answers that are hidden."""

from __future__ import annotations

from typing import Any

import pytest

from medtune.config.sources import ColumnsSection
from medtune.data.cleaning import clean_pairs
from medtune.data.exam_rows import read_exam_rows
from medtune.data.pairs import Pairs, pairs_of, require_columns
from medtune.errors import DataError

OPTIONS = {"opa": "Folic acid", "opb": "Vitamin K", "opc": "Iron", "opd": "Zinc"}
WITH_OPTIONS = "question with options A to D below it"


def question(cop: Any = 1, **more: Any) -> dict[str, Any]:
    """As https://www.tensorflow.org/datasets/community_catalog/huggingface/medmcqa lists the columns."""
    return {"id": "q1", "question": "What does clotting need ?", **OPTIONS, "cop": cop, "choice_type": "single",
            "exp": "Clotting factors need it.", "subject_name": "Physiology", "topic_name": None} | more  # fmt: skip


def abstract(**more: Any) -> dict[str, Any]:
    """As https://huggingface.co/datasets/qiaojin/PubMedQA/blob/main/README.md lists the columns."""
    below = {"contexts": ["Forty people ran.", "Twenty got well."], "labels": ["METHODS", "RESULTS"], "meshes": ["Run"]}
    return {"pubid": 7, "question": "Does running help ?", "context": below,
            "long_answer": "Running helps half of the people.", "final_decision": "maybe"} | more  # fmt: skip


def read(*records: dict[str, Any], **columns: Any) -> Pairs:
    return pairs_of(list(records), ColumnsSection(**columns), "rows")


def answers(*records: dict[str, Any], **columns: Any) -> list[str]:
    return [pair.answer for pair in read(*records, **columns).pairs]


# MedMCQA ------------------------------------------------------------------------------------------------------------


def test_options_go_below_the_question_and_the_right_one_is_the_answer() -> None:
    made = read(question(), qtype="subject_name")
    assert made.notes == (
        "not used: id, choice_type, exp, topic_name",
        f"MedMCQA's rows: {WITH_OPTIONS}, the right option (cop, counted from 0) as answer",
    )
    (pair,) = clean_pairs(made.pairs, 1).pairs
    assert pair.question == "What does clotting need ?\n\nA. Folic acid\nB. Vitamin K\nC. Iron\nD. Zinc"
    assert (pair.answer, pair.qtype) == ("Vitamin K", "Physiology")


def test_a_hidden_answer_is_left_out_with_its_reason() -> None:
    """The test part says -1: https://github.com/huggingface/datasets/pull/4064."""
    made = read(question(0), question(-1), question(None), question("?"), question(2.5), question(9))
    assert [pair.answer for pair in made.pairs] == ["Folic acid"]
    assert [rule for rule, _ in made.left_out] == ["no_right_option"] * 5
    assert "Vitamin K" in made.left_out[0][1].raw_question


def test_a_file_of_hidden_answers_is_no_error_beside_others() -> None:
    made = read(question(-1), question(-1))
    assert (made.pairs, len(made.left_out)) == ([], 2)
    require_columns([question(-1)], ColumnsSection(), "rows")


@pytest.mark.parametrize(
    ("places", "expected", "first"),
    [
        ([0, 3], ["Folic acid", "Zinc"], 0),
        (["0", "3.0"], ["Folic acid", "Zinc"], 0),
        ([1, 4], ["Folic acid", "Zinc"], 1),
        (["a", "D"], ["Folic acid", "Zinc"], 0),
    ],
)
def test_right_options_count_from_0_or_as_the_authors_files_do_from_1(
    places: list[Any], expected: list[str], first: int
) -> None:
    """The set on the Hub subtracts 1 from what the files say: https://github.com/huggingface/datasets/pull/4064."""
    made = read(*map(question, places))
    assert [pair.answer for pair in made.pairs] == expected
    assert f"(cop, counted from {first})" in made.notes[-1]


def test_options_may_be_numbers_or_missing_and_an_empty_right_one_is_no_answer() -> None:
    made = read(question(0, opa=5, opc=None, opd=""), question(2, opc=None))
    assert [(pair.answer, pair.context) for pair in made.pairs] == [("5", "A. 5\nB. Vitamin K")]
    assert [rule for rule, _ in made.left_out] == ["unanswered"]


@pytest.mark.parametrize(("columns", "more"), [({"answer": "exp"}, {}), ({}, {"Answer": "Clotting factors need it."})])
def test_an_answer_column_of_its_own_is_the_answer(columns: dict[str, str], more: dict[str, str]) -> None:
    made = read(question(-1, **more), **columns)
    assert [(pair.answer, pair.context[:2]) for pair in made.pairs] == [("Clotting factors need it.", "A.")]
    assert made.notes[-1] == f"MedMCQA's rows: {WITH_OPTIONS}, {columns.get('answer', 'Answer')} as answer"


# PubMedQA -----------------------------------------------------------------------------------------------------------


def test_an_abstract_goes_below_the_question_and_the_decision_is_the_answer() -> None:
    made = read(abstract(), document_id="pubid")
    assert made.notes == (
        "not used: long_answer",
        "PubMedQA's rows: question with its abstract below it, final_decision as answer",
    )
    (pair,) = clean_pairs(made.pairs, 1).pairs
    assert pair.question == "Does running help ?\n\nForty people ran.\nTwenty got well."
    assert (pair.answer, pair.document_id) == ("maybe", "7")


def test_the_long_answer_is_taken_where_it_is_named() -> None:
    assert answers(abstract(), answer="long_answer") == ["Running helps half of the people."]
    unlabelled = {name: value for name, value in abstract().items() if name != "final_decision"}
    assert answers(unlabelled, answer="long_answer") == answers(abstract(), answer="long_answer")
    with pytest.raises(DataError, match="no column 'Answer'; it has pubid, question, context, long_answer"):
        read(unlabelled)


def test_rows_without_a_decision_or_an_abstract() -> None:
    made = read(abstract(), abstract(final_decision=None), abstract(context=None))
    assert [(pair.answer, pair.context[:5]) for pair in made.pairs] == [("maybe", "Forty"), ("maybe", "")]
    assert [rule for rule, _ in made.left_out] == ["unanswered"]
    with pytest.raises(DataError, match="row 1: context is a dict, not text"):
        read(abstract(), abstract(context={"contexts": [1]}))


# Neither ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"question": "q", "context": "text", "final_decision": "yes"}, {}),
        ({"question": "q", "context": {"title": "t"}, "answer": "a"}, {}),
        ({"question": "q", **OPTIONS, "answer": "a"}, {}),
        (question(), {"context": "exp"}),
        (abstract(), {"context": "long_answer"}),
        ({}, {}),
    ],
)
def test_other_columns_are_no_exam(record: dict[str, Any], columns: dict[str, str]) -> None:
    assert read_exam_rows([record], ColumnsSection(**columns)) is None
