"""Excel workbooks: sheets, numbers, dates, and formulas whose value nobody stored."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from medtune.config.sources import ColumnsSection, TableSection
from medtune.data.sources import read_source
from medtune.data.table_files import read_table
from medtune.errors import DataError


def write(path: Path, **sheets: list[list[Any]]) -> Path:
    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


ROWS = [["Question", "Answer", "id"], ["Why ?", "Because.", 7], ["How ?", "Slowly, and with care.", 12345678901]]


def test_rows_of_a_sheet(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.xlsx", Data=[[], *ROWS, [None, None, None]])
    read = read_source(str(path), ColumnsSection(id="id"))
    assert [(pair.id, pair.question, pair.answer) for pair in read.pairs] == [
        ("7", "Why ?", "Because."), ("12345678901", "How ?", "Slowly, and with care."),
    ]  # fmt: skip
    assert read.notes == ()


def test_the_first_sheet_with_rows_is_taken_and_said_or_one_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.xlsx", Empty=[], Data=ROWS, Other=[["Question", "Answer"], ["Other ?", "Yes."]])
    table = read_table(path)
    assert ([row["Question"] for row in table.rows], table.notes) == (
        ["Why ?", "How ?"], ("sheet 'Data', the first of 2 with rows",),
    )  # fmt: skip
    table = read_table(path, TableSection(sheet="Other"))
    assert ([row["Question"] for row in table.rows], table.notes) == (["Other ?"], ())


def test_cells_are_text(tmp_path: Path) -> None:
    cells = [True, 1.5, 3.0, datetime.datetime(2026, 7, 26), datetime.time(8, 30), "NA", None]
    path = write(tmp_path / "rows.xlsx", Data=[["a", "b", "c", "d", "e", "f", "g"], cells])
    (row,) = read_table(path).rows
    assert list(row.values()) == ["TRUE", "1.5", "3", "2026-07-26", "08:30:00", "NA", ""]


def test_formulas_that_nobody_calculated_are_told(tmp_path: Path) -> None:
    """openpyxl reads them as None: https://github.com/felipe-prenholato/openpyxl/issues/69."""
    path = write(tmp_path / "rows.xlsx", Data=[["Question", "Answer"], ["Why ?", '="a"&"b"'], ["How ?", "Slowly."]])
    read = read_source(str(path), ColumnsSection())
    assert (len(read.pairs), read.unanswered) == (1, 1)
    assert read.notes == (
        "1 formulas without a stored value are read as empty: open it in Excel or LibreOffice and save it, which "
        "stores them",
    )


@pytest.mark.parametrize(
    ("sheets", "sheet", "expected"),
    [
        ({"Data": []}, None, "sheet 'Data' holds no rows; there is nothing to train on"),
        ({"Data": ROWS}, "Rows", "no sheet 'Rows'; it has 'Data'; name yours with --set data.table.sheet=…"),
    ],
)
def test_a_sheet_that_cannot_be_read(tmp_path: Path, sheets: Any, sheet: str | None, expected: str) -> None:
    path = write(tmp_path / "rows.xlsx", **sheets)
    with pytest.raises(DataError) as caught:
        read_table(path, TableSection(sheet=sheet))
    assert str(caught.value) == f"{path}: {expected}"


@pytest.mark.parametrize("part", ["xl/workbook.xml", "xl/worksheets/sheet1.xml", "[Content_Types].xml"])
@pytest.mark.parametrize("content", [b"", b"<not", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'])
def test_a_damaged_workbook_is_refused_in_one_line(tmp_path: Path, part: str, content: bytes) -> None:
    sound = write(tmp_path / "sound.xlsx", Data=ROWS)
    path = tmp_path / "rows.xlsx"
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name == part else source.read(name))
    with pytest.raises(DataError) as caught:
        list(read_table(path).rows)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")


def test_a_workbook_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("xl/worksheets/sheet1.xml", b" " * (1 << 27))
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"):
        read_table(path)
