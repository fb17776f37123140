"""Separators, headers and ragged rows of CSV and its like."""

from __future__ import annotations

import pytest

from medtune.data.tables.separated import Quotes, read_separated
from medtune.data.tables.table import ReadTable
from medtune.errors import DataError

ROWS = [{"Question": "Why ?", "Answer": "Because, of course; yes | no."}, {"Question": "How ?", "Answer": "Slowly."}]


def read(text: str, *, usual: str = ",", separator: str | None = None, quotes: Quotes = "checked") -> ReadTable:
    return read_separated("rows.csv", text, usual=usual, separator=separator, quotes=quotes)


@pytest.mark.parametrize(
    ("separator", "usual", "said"),
    [
        (",", ",", ()),
        ("\t", ",", ("separator tab",)),
        (";", ",", ("separator semicolon",)),
        ("|", ",", ("separator pipe",)),
        ("\t", "\t", ()),
        (",", "\t", ("separator comma",)),
    ],
)
def test_a_separator_is_found_and_said(separator: str, usual: str, said: tuple[str, ...]) -> None:
    """A semicolon where the decimal mark is a comma: https://github.com/pandas-dev/pandas/issues/21695 and its like."""
    lines = [["Question", "Answer"], *([row["Question"], f'"{row["Answer"]}"'] for row in ROWS)]
    table = read("\n".join(separator.join(line) for line in lines), usual=usual)
    assert (list(table.rows), table.notes) == (ROWS, said)


def test_excels_own_line_names_the_separator() -> None:
    table = read("sep=;\r\nQuestion;Answer\r\nWhy, then ?;Because.\r\n")
    assert list(table.rows) == [{"Question": "Why, then ?", "Answer": "Because."}]
    assert table.notes == ("separator semicolon, from its first line",)


def test_a_header_that_two_could_divide_goes_by_the_rows() -> None:
    table = read("Question (who, asks);Answer\nWhy ?;Because.\nHow ?;Slowly.\n")
    assert table.notes == ("separator semicolon",)


def test_a_separator_that_is_given_is_taken() -> None:
    table = read("Question^Answer\nWhy, then ?^Because.\n", separator="^")
    assert (list(table.rows), table.notes) == ([{"Question": "Why, then ?", "Answer": "Because."}], ())


def test_columns_without_a_name_are_not_read_and_others_are_told_apart() -> None:
    (row,) = read(",Question,Answer,Answer, \n0,q,a,b,c\n").rows
    assert row == {"Question": "q", "Answer": "a", "Answer.1": "b"}


def test_words_that_stand_for_gaps_elsewhere_are_words() -> None:
    """https://github.com/pandas-dev/pandas/issues/55032 and https://github.com/pandas-dev/pandas/issues/10647."""
    texts = ["NA", "N/A", "None", "null", "nan", "007", "12345678901234567890", "1e5"]
    table = read("Answer,id\n" + "".join(f"{text},{text}\n" for text in texts))
    assert [(row["Answer"], row["id"]) for row in table.rows] == [(text, text) for text in texts]


def test_rows_with_too_few_and_too_many_cells_are_told_apart() -> None:
    table = read("qtype,Question,Answer\nt,q\nt,q,a\nt,q,a, b\nt,q,a,,\n\nt\n")
    assert list(table.rows) == [
        {"qtype": "t", "Question": "q", "Answer": None},
        {"qtype": "t", "Question": "q", "Answer": "a"},
        {"qtype": "t", "Question": "q", "Answer": "a"},
        {"qtype": "t", "Question": None, "Answer": None},
    ]
    assert (table.narrow, table.wide) == ({0: 2, 3: 7}, {4: "t | q | a |  b"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a readable CSV file (it holds no header)"),
        (" \n\n", "not a readable CSV file (it holds no header)"),
        ("Question,Answer\nq,a,b\n", "its first row has more cells than its header"),
        ("Question,Answer\nq,a\nq,a,b\nq,a,b\n", "2 of its 3 rows have more cells than its header, such as line 3"),
    ],
)
def test_what_is_no_table_is_refused(text: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text)
    assert str(caught.value).startswith(f"rows.csv: {expected}")


def test_quotes_that_mean_nothing_are_characters() -> None:
    (row,) = read('Question,Answer\nWhat is 6" ?,"a stray one\n', quotes="literal").rows
    assert row == {"Question": 'What is 6" ?', "Answer": '"a stray one'}
