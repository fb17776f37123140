"""Records become pairs: contexts, lists of answers, and rows that are none."""

from __future__ import annotations

from typing import Any

import pytest

from medtune.config.sources import ColumnsSection
from medtune.data.cleaning import clean_pairs
from medtune.data.pairs import pairs_of
from medtune.errors import DataError

COLUMNS = ColumnsSection()
FIVE = "An answer of five words"


def test_an_input_comes_below_its_instruction_and_keeps_its_lines() -> None:
    records = [
        {"instruction": "Sum it up,\nplease", "input": "First line.\nSecond  line.", "output": FIVE},
        {"instruction": "What is gout ?", "input": " ", "output": FIVE},
    ]
    first, second = clean_pairs(pairs_of(records, COLUMNS, "rows.json").pairs).pairs
    assert first.question == "Sum it up, please\n\nFirst line.\nSecond line."
    assert first.raw_question == "Sum it up,\nplease\n\nFirst line.\nSecond  line."
    assert (first.context, second.context, second.question) == ("", "", "What is gout ?")


@pytest.mark.parametrize(
    ("cell", "answer", "references"),
    [
        ([FIVE, "Another one of five words"], FIVE, (FIVE, "Another one of five words")),
        (["", FIVE, None], FIVE, ()),
        ([f"{FIVE} ", FIVE], FIVE, ()),
        ([FIVE], FIVE, ()),
    ],
)
def test_the_first_of_several_answers_is_learnt_and_all_are_references(
    cell: list[Any], answer: str, references: tuple[str, ...]
) -> None:
    (pair,) = clean_pairs(pairs_of([{"Question": "q ?", "Answer": cell}], COLUMNS, "rows.json").pairs).pairs
    assert (pair.answer, pair.references) == (answer, references)


def test_rows_that_are_no_pairs_are_kept_with_the_reason() -> None:
    records = [
        {"Question": "q1 ?", "Answer": None},
        {"Question": "q2 ?", "Answer": " "},
        {"Question": "q3 ?", "Answer": "a"},
        {"Question": "q4 ?", "Answer": []},
    ]
    made = pairs_of(records, COLUMNS, "rows.csv", narrow={0: 2, 2: 4})
    assert [pair.question for pair in made.pairs] == ["q3 ?"]
    assert [(reason, pair.raw_question) for reason, pair in made.left_out] == [
        ("too_few_cells", "q1 ?"), ("unanswered", "q2 ?"), ("unanswered", "q4 ?"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"instruction": "q", "input": {"a": 1}, "output": "a"}, "row 0: context is a dict, not text"),
        ({"Question": "q", "Answer": [["a"]]}, "row 0: answer is a list with a list, not text"),
    ],
)
def test_values_of_other_types_are_refused(record: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        pairs_of([record], COLUMNS, "rows.json")
    assert str(caught.value).startswith(f"rows.json: {expected}")
