"""A quote that swallows rows is refused with its line; cells of many lines are not.

Known as rows that get lost in silence: https://github.com/pandas-dev/pandas/issues/21695,
https://github.com/pandas-dev/pandas/issues/39857, https://github.com/pandas-dev/pandas/issues/25228 and
https://github.com/apple/turicreate/issues/1692.
"""

from __future__ import annotations

import pytest

from medtune.data.tables.separated import Quotes, read_separated
from medtune.errors import DataError

HEADER = "Question,Answer,qtype"


def table(lines: list[str], quotes: Quotes = "checked") -> list[object]:
    text = "\n".join(lines) + "\n"
    return list(read_separated("rows.csv", text, usual=",", separator=None, quotes=quotes).rows)


def rows(count: int = 30, *, labels: bool = True, quoted: bool = False) -> list[str]:
    cell = '"Answer, number {}."' if quoted else "Answer number {}."
    answers = [cell.format(n) for n in range(count)]
    label = [f",{('causes', 'symptoms')[n % 2]}" if labels else "" for n in range(count)]
    return [HEADER if labels else "Question,Answer", *(f"Question {n} ?,{answers[n]}{label[n]}" for n in range(count))]


def opened(line: str) -> str:
    return line.replace("Answer", '"Answer').replace('""', '"')


def closed(line: str) -> str:
    return line.replace(".", '."')


def refused(lines: list[str]) -> str:
    with pytest.raises(DataError) as caught:
        table(lines)
    (line,) = str(caught.value).splitlines()
    assert line.endswith("or if quotes mean nothing there, --set data.table.quotes=literal")
    return line.removeprefix("rows.csv: ").partition(";")[0]


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("last", [11, 25])
def test_a_quote_that_closes_rows_later(labels: bool, last: int) -> None:
    lines = rows(labels=labels)
    lines[10], lines[last] = opened(lines[10]), closed(lines[last])
    assert refused(lines) == (
        f"a quote in line 11 closes in line {last + 1}, and the lines between look like rows, so that {last - 9} lines "
        "become one row"
    )
    assert len(table(lines, "trusted")) == 30 - (last - 10)
    assert len(table(lines, "literal")) == 30


def test_a_quote_that_never_closes() -> None:
    lines = rows()
    lines[20] = opened(lines[20])
    assert refused(lines) == "a quote in line 21 never closes, so that 11 lines become one row"
    with pytest.raises(DataError, match="the quote that opens in line 21 never closes"):
        table(lines, "trusted")


def test_a_quote_that_another_rows_quote_closes() -> None:
    lines = rows(quoted=True)
    lines[5] = 'Question 4 ?,"Answer that lost its quote.,causes'
    assert refused(lines).startswith("a quote in line 6 closes in the middle of a cell, in line 7")


def test_answers_of_many_lines_are_sound() -> None:
    lists = "\n".join(["These are signs:", "pain, fever, cough", "rash, itch, thirst", "Is that all ?, no, never"])
    lines = [
        HEADER,
        *(f'Question {n} ?,"{lists} {n}.",{("causes", "symptoms")[n % 2]}' for n in range(12)),
        *rows()[1:],
    ]
    assert len(table(lines)) == 42


def test_a_list_of_pairs_in_a_table_of_two_columns_is_sound() -> None:
    doses = "\n".join(f"drug {n}, {n} mg" for n in range(8))
    assert len(table(["Question,Answer", f'Which doses ?,"{doses}"', "Why ?,Because."])) == 2


def test_a_quote_inside_of_a_cell_is_a_character() -> None:
    assert len(table(["Question,Answer", 'A 6" knife ?,The "best" one.', '"A ""quoted"" one ?",Yes.'])) == 2
