"""Rows that cannot be split are told why: too few of them, or one group and what joined it."""

from __future__ import annotations

import pytest

from medtune.data.split_problems import require_rows
from medtune.data.splits import PARTS, assign_groups
from medtune.errors import DataError
from medtune.records import QAPair, Split


def row(number: int, **changes: str) -> QAPair:
    texts = {"question": f"Question {number} ?", "answer": f"An answer with words of its own, {number * 7919}."}
    return QAPair(id=str(number), qtype="", **(texts | changes))


def refusal(rows: list[QAPair], split: Split) -> str:
    with pytest.raises(DataError) as caught:
        require_rows(split, rows)
    assert f"data.split: {require_rows(split, rows, must_split=False)}" == str(caught.value)
    (line,) = str(caught.value).splitlines()
    return line


def test_three_splits_with_rows_will_do() -> None:
    rows = [row(1)]
    assert require_rows(Split(tuple(rows), tuple(rows), tuple(rows)), rows) == ""


@pytest.mark.parametrize("empty", PARTS)
def test_an_empty_split_is_refused(empty: str) -> None:
    rows = assign_groups([row(1), row(2)])
    split = Split(**{name: () if name == empty else (rows[0],) for name in PARTS})
    assert refusal(rows, split) == (
        f"data.split: the {empty} split is empty (2 rows in all); give more rows or other shares"
    )


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        (
            {"focus": "gout"},
            ", which share the focus 'gout'; leave that column out with --set data.columns.focus=null, or deal single "
            "rows with --set data.split.method=random, which leaks what they share",
        ),
        (
            {"document_id": "d1"},
            ", which share the document 'd1'; leave that column out with --set data.columns.document_id",
        ),
        (
            {"question": "What is it ?"},
            ", which share the question 'what is it'; deal single rows with --set data.split.method=random, which "
            "leaks what they share, or give rows that differ",
        ),
        (
            {"answer": "One two three four five."},
            ", which share the answer 'one two three four five'; deal single rows",
        ),
    ],
)
def test_a_group_that_holds_everything_is_told_by_what_joined_it(shared: dict[str, str], expected: str) -> None:
    rows = assign_groups([row(number, **shared) for number in range(20)])
    line = refusal(rows, Split(tuple(rows), (), ()))
    assert line.startswith(
        f"data.split: the validation split is empty (20 rows in all): one group holds all of them{expected}"
    )


def test_a_group_that_holds_most_rows_is_told_with_its_size() -> None:
    rows = assign_groups([*(row(number, focus="gout") for number in range(16)), row(16), row(17)])
    assert "one group holds 16 of them, which share the focus 'gout'" in refusal(rows, Split(tuple(rows), (), ()))
