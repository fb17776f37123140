"""Columns: whatever their case and blanks, by the usual names, and never guessed between two."""

from __future__ import annotations

import pytest

from medtune.config.sources import ColumnsSection
from medtune.data.columns import column_names, find_columns
from medtune.errors import DataError


def found(present: list[str], **columns: str | None) -> tuple[dict[str, str], str]:
    result = find_columns(present, ColumnsSection(**columns), "rows.csv")
    return {field: name for field, name in result.names.items() if name is not None}, result.note


def refused(present: list[str], **columns: str | None) -> list[str]:
    with pytest.raises(DataError) as caught:
        find_columns(present, ColumnsSection(**columns), "rows.csv")
    return [line.removeprefix("rows.csv: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("present", [["Question", "Answer"], ["question", "ANSWER"], [" Question ", "Answer\t"]])
def test_case_and_blanks_make_no_difference_and_are_not_said(present: list[str]) -> None:
    assert found(present) == ({"question": present[0], "answer": present[1]}, "")


@pytest.mark.parametrize(
    ("present", "expected", "said"),
    [
        (
            ["question", "answer", "source", "focus_area"],
            {"question": "question", "answer": "answer", "source": "source", "focus": "focus_area"},
            "focus from focus_area",
        ),
        (
            ["document_id", "document_source", "question_focus", "question_type", "umls_cui", "question", "answer"],
            {
                "question": "question", "answer": "answer", "document_id": "document_id", "focus": "question_focus",
                "source": "document_source", "qtype": "question_type",
            },
            "question type from question_type, focus from question_focus, source from document_source, not used: umls_cui",
        ),
        (
            ["instruction", "input", "output"],
            {"question": "instruction", "context": "input", "answer": "output"},
            "question from instruction with input below it, answer from output",
        ),
        (
            ["instruction", "context", "response", "category"],
            {"question": "instruction", "context": "context", "answer": "response"},
            "question from instruction with context below it, answer from response, not used: category",
        ),
        (["input", "output"], {"question": "input", "answer": "output"}, "question from input, answer from output"),
        (
            ["Prompt", "Completion"],
            {"question": "Prompt", "answer": "Completion"},
            "question from Prompt, answer from Completion",
        ),
        (["question", "answer", "prompt"], {"question": "question", "answer": "answer"}, "not used: prompt"),
        (
            ["topic", "Question", "Answer"],
            {"focus": "topic", "question": "Question", "answer": "Answer"},
            "focus from topic",
        ),
    ],
    ids=[
        "Kaggle's MedQuAD", "lavita's MedQuAD", "Alpaca", "Dolly", "input and output", "OpenAI", "the default first",
        "a topic",
    ],
)  # fmt: skip
def test_the_usual_names_are_known_and_said(present: list[str], expected: dict[str, str], said: str) -> None:
    """Elsewhere a mapping has to be written: https://github.com/hiyouga/LlamaFactory/issues/1312 and
    https://github.com/axolotl-ai-cloud/axolotl/issues/879.
    """
    assert found(present) == (expected, said)


def test_a_name_that_is_configured_is_the_only_one() -> None:
    assert found(["instruction", "Patient", "output"], question="patient", answer="output")[0] == {
        "question": "Patient", "answer": "output",
    }  # fmt: skip
    assert found(["instruction", "input", "output"], question="instruction", context=None)[0] == {
        "question": "instruction", "answer": "output",
    }  # fmt: skip
    assert found(["q", "about", "output"], question="q", context="about")[0]["context"] == "about"


@pytest.mark.parametrize(
    ("present", "columns", "expected"),
    [
        (
            ["patient_question", "Answer"], {},
            ["no column 'Question'; it has patient_question, Answer; name yours with --set "
             "data.columns.question=patient_question"],
        ),
        (
            ["a", "b"], {"focus": "topic", "answer": "b", "question": "a"},
            ["no column 'topic'; it has a, b; name yours with --set data.columns.focus=NAME"],
        ),
        (
            ["prompt", "instruction", "output"], {},
            ["its columns prompt and instruction could each be the question; choose one with --set "
             "data.columns.question=prompt"],
        ),
        (
            ["question", "answer", "Answer "], {},
            ["its columns answer and Answer  could each be the answer; choose one with --set "
             "data.columns.answer=answer"],
        ),
        (
            ["Question", "Answer", "Answer.1"], {},
            ["its columns Answer and Answer.1 could each be the answer; choose one with --set "
             "data.columns.answer=Answer"],
        ),
    ],
    ids=["a near name", "no near name", "two usual names", "two that differ in blanks", "one name twice"],
)  # fmt: skip
def test_what_is_not_there_or_there_twice_is_told_with_the_flag(
    present: list[str], columns: dict[str, str], expected: list[str]
) -> None:
    assert refused(present, **columns) == expected


def test_row_labels_of_pandas_are_no_columns() -> None:
    records = [{"Unnamed: 0": 1, "__index_level_0__": 2, " ": 3, "Question": "q"}, {"Answer": "a"}]
    assert column_names(records) == ["Question", "Answer"]
