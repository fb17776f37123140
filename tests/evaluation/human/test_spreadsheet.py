from __future__ import annotations

import csv
import io
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.errors import DataError
from medtune.evaluation.human.blinding import Item
from medtune.evaluation.human.rubric import RATING_COLUMNS
from medtune.evaluation.human.spreadsheet import disarm, read_spreadsheet, rearm, sheet_csv

HEADER = ("sheet", "item", "rater", "question", "reference", "answer_a", "answer_b", *RATING_COLUMNS, "preference",
          "comment")  # fmt: skip
FORMULA_SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"


def cells(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter))


def test_an_archive_that_is_no_workbook(tmp_path: Path) -> None:
    (tmp_path / "sheet.ods").write_bytes(b"PK\x03\x04rest of a zip archive")
    with pytest.raises(DataError, match=r"not a readable Excel workbook .* save it as \.xlsx, or as CSV"):
        read_spreadsheet(tmp_path / "sheet.ods")


def test_a_sheet_that_excel_saved_as_a_workbook(tmp_path: Path) -> None:
    item = Item("1", "=What", "It is; so.", "One, two.", "Naïve — 漢字")
    lines = cells(sheet_csv("bcdfghjk", [item]))
    lines[1][HEADER.index("accuracy_a")] = "4"
    book = openpyxl.Workbook()
    for line in lines:
        book.active.append([float(cell) if cell == "4" else cell or None for cell in line])
    book.save(tmp_path / "sheet.xlsx")
    (tmp_path / "sheet.csv").write_text(sheet_csv("bcdfghjk", [item]), encoding="utf-8")
    table, (row,) = read_spreadsheet(tmp_path / "sheet.xlsx"), read_spreadsheet(tmp_path / "sheet.csv").rows
    assert set(table.columns) == set(HEADER)
    assert table.rows == ({**row, "accuracy_a": "4"},)


def test_a_sheet_as_it_is_written(tmp_path: Path) -> None:
    item = Item("1", 'What "is" it,\nreally ?', "It is; so.", "One, two.", "Naïve — 漢字")
    text = sheet_csv("bcdfghjk", [item])
    assert text.startswith("\ufeff")
    path = tmp_path / "sheet.csv"
    path.write_text(text, encoding="utf-8", newline="")
    table = read_spreadsheet(path)
    assert table.columns == HEADER
    (row,) = table.rows
    assert row == {"sheet": "bcdfghjk", "item": "1", "rater": "", "question": item.question,
                   "reference": item.reference, "answer_a": item.answer_a, "answer_b": item.answer_b,
                   **dict.fromkeys((*RATING_COLUMNS, "preference", "comment"), "")}  # fmt: skip


def test_the_first_line_says_what_the_ends_of_a_scale_mean() -> None:
    header = cells(sheet_csv("bcdfghjk", []))[0]
    assert "freedom_from_harm_b (1 = serious harm is likely, 5 = no harm foreseen)" in header
    assert "preference (A, B or tie)" in header


@pytest.mark.parametrize(
    ("text", "disarmed"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "'\t'=1"),
        ("\rx", "'\rx"),
        ("  =1", "'  =1"),
        ("a;=1", "a;'=1"),
        ("a; =1", "a;' =1"),
        ("a\t@b", "a\t'@b"),
        ('a;"=1', "a;'\"=1"),
        ("Two:\n- one\n- two", "Two:\n'- one\n'- two"),
        ("a = b, -1 and c@d", "a = b, -1 and c@d"),
        ("", ""),
    ],
)
def test_formulas_are_disarmed(text: str, disarmed: str) -> None:
    assert disarm(text) == disarmed
    assert rearm(disarmed) == text


@given(st.lists(st.sampled_from([*FORMULA_SIGNS, ";", ",", "\t", "\n", "\r", '"', " ", "1", "x"]), max_size=12))
def test_no_spreadsheet_finds_a_formula(signs: list[str]) -> None:
    """However it splits the line: as Excel does with a file of commas where the locale's delimiter is another."""
    text = sheet_csv("bcdfghjk", [Item("1", "Why ?", "So.", "".join(signs), "x")])
    for delimiter in (",", ";", "\t"):
        for line in cells(text, delimiter):
            for cell in line:
                assert not cell.lstrip(" ").startswith(tuple(FORMULA_SIGNS)), repr(cell)


HEAD = "Sheet;ITEM;Accuracy A (1 = bad, or made up, 5 = good);accuracy-b;Preference;Comment"
BODY = "bcdfghjk;1;4;5;A;Käse"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_make_of_it(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "filled.csv"
    path.write_bytes(f"{HEAD}{end}{BODY}{end};;;;;{end}".encode(encoding))
    table = read_spreadsheet(path)
    assert table.columns == ("sheet", "item", "accuracy_a", "accuracy_b", "preference", "comment")
    assert table.rows == (dict(zip(table.columns, ["bcdfghjk", "1", "4", "5", "A", "Käse"], strict=True)),)


def test_tabs_and_short_lines(tmp_path: Path) -> None:
    path = tmp_path / "filled.csv"
    path.write_text("sheet\titem\tpreference\tcomment\nbcdfghjk\t1\ttie\n")
    assert read_spreadsheet(path).rows == ({"sheet": "bcdfghjk", "item": "1", "preference": "tie"},)


@pytest.mark.parametrize("content", ["", "\ufeff", "sheet,item\n", "\n\n"])
def test_empty_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "filled.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"filled\.csv: empty; give a filled sheet or the page's export$"):
        read_spreadsheet(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read \(No such file or directory\)"):
        read_spreadsheet(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_spreadsheet(tmp_path)
    path = tmp_path / "huge.csv"
    path.write_text("sheet,item\n" + "x" * 200_000)
    with pytest.raises(DataError, match=r"huge\.csv: not a CSV file \(field larger than field limit"):
        read_spreadsheet(path)
