"""Rows in a sheet of an Excel workbook, read as the values that Excel stored."""

import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from itertools import zip_longest
from pathlib import Path
from typing import Any

from medtune.data.tables.separated import column_names
from medtune.data.tables.table import ReadTable
from medtune.errors import DataError, Option, first_line, show_value

# A worksheet of text packs to a fifth. Far beyond that it is made to fill the memory.
_MAX_RATIO = 100
_RATIO_COUNTS_FROM = 1 << 26


def read_workbook(path: Path, sheet: str | None, max_rows: int, max_bytes: int) -> ReadTable:
    """Rows of one sheet, whose first filled row names the columns: `sheet`, or else the first that holds any.

    Numbers and dates become text. A formula has the value that Excel stored with it; one without is read as empty, and
    told. Raises DataError, in one line, for a file that cannot be read.
    """
    _require_size(path, max_bytes)
    name, others = _choose(path, sheet)
    rows = [cells for cells in _cells(path, name, max_rows, stored=True) if any(cells)]
    if not rows:
        raise DataError(path, f"sheet {show_value(name)} holds no rows", _other_sheet(others))
    names = column_names(rows[0])
    notes = [f"sheet {show_value(name)}, the first of {len(others) + 1} with rows"] if others and not sheet else []
    if unstored := _formulas_without_value(path, name, max_rows):
        notes.append(
            f"{unstored:,} formulas without a stored value are read as empty: open it in Excel or LibreOffice and save "
            "it, which stores them"
        )
    body = [
        {column: cell for column, cell in zip_longest(names, cells[: len(names)], fillvalue="") if column is not None}
        for cells in rows[1:]
    ]
    return ReadTable(body, tuple(notes))


def _require_size(path: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            packed = path.stat().st_size
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _unreadable(path, error) from None
    if size > max_bytes:
        raise DataError(path, f"unpacks to more than {max_bytes:,} bytes", "split it")
    if size > _RATIO_COUNTS_FROM and size > _MAX_RATIO * packed:
        problem = f"unpacks to more than {_MAX_RATIO} times its size, which no text does"
        raise DataError(path, problem, "if it is sound, save the sheet as CSV and give that file")


def _choose(path: Path, wanted: str | None) -> tuple[str, list[str]]:
    """The sheet to read, and the names of the others that hold anything."""
    with _Opened(path, stored=True) as book:
        names = [sheet.title for sheet in book.worksheets]
        if wanted is not None:
            if wanted not in names:
                problem = f"no sheet {show_value(wanted)}; it has {', '.join(map(show_value, names[:20]))}"
                raise DataError(path, problem, ("name yours with ", Option("set", "data.table.sheet=…")))
            return wanted, []
        filled = [
            sheet.title
            for sheet in book.worksheets
            if any(any(cell is not None for cell in row) for row in sheet.iter_rows(values_only=True))
        ]
    if not names:
        raise DataError(path, "holds no sheet of cells", "save the rows in one")
    return (filled[0], filled[1:]) if filled else (names[0], names[1:])


def _cells(path: Path, name: str, max_rows: int, *, stored: bool) -> Iterator[list[str]]:
    with _Opened(path, stored=stored) as book:
        for number, row in enumerate(book[name].iter_rows(values_only=True)):
            if number > max_rows:
                raise DataError(path, f"more than {max_rows:,} rows", "split it")
            yield [_text(cell) for cell in row]


def _formulas_without_value(path: Path, name: str, max_rows: int) -> int:
    values = _cells(path, name, max_rows, stored=True)
    formulas = _cells(path, name, max_rows, stored=False)
    return sum(
        not value and formula.startswith("=")
        for row, written in zip(values, formulas, strict=False)
        for value, formula in zip(row, written, strict=False)
    )


class _Opened:
    """A workbook, open for reading row by row; what goes wrong in the block is a DataError about the file."""

    def __init__(self, path: Path, *, stored: bool) -> None:
        self.path, self.stored = path, stored
        self.book: Any = None

    def __enter__(self) -> Any:
        from openpyxl import load_workbook

        self.file = self.path.open("rb")  # which openpyxl would leave open where it fails
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of styles and extensions, which hold no rows
                self.book = load_workbook(self.file, read_only=True, data_only=self.stored, keep_links=False)
        # openpyxl has no error of its own for a part that is missing or is not what it should be.
        except Exception as error:
            self.file.close()
            raise _unreadable(self.path, error) from None
        return self.book

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.book.close()
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise _unreadable(self.path, error) from None


def _unreadable(path: Path, error: BaseException) -> DataError:
    fix = "open it in Excel or LibreOffice and save it as .xlsx, or as CSV"
    return DataError(path, f"not a readable Excel workbook ({first_line(error)})", fix)


def _other_sheet(others: list[str]) -> tuple[object, ...] | str:
    if not others:
        return "there is nothing to train on"
    return ("name another with ", Option("set", f"data.table.sheet={others[0]}"))


def _text(cell: Any) -> str:
    """A cell as text; whole numbers without a point, which Excel stores as fractions once they are large."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime) and cell.time() == time():
        return cell.date().isoformat()
    return cell.isoformat() if isinstance(cell, date | time) else str(cell)
