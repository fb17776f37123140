"""Quotes that open in one row and close in another: the rows between become one cell, and are lost in silence."""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from medtune.data.tables.line import Line
from medtune.errors import DataError, Option

# What rows have in common is learnt from at least so many of them. A column is one of labels where it holds at most so
# many different ones, and most of its cells may end alike, as questions do with "?".
_ROWS_TO_LEARN_FROM, _LABELS, _ALIKE = 10, 30, 0.8
# Lines of one record that look like rows: this share of them, and where rows have nothing in common but their number of
# cells, which prose may have by chance, at least so many.
_SHARE, _LINES_BY_NUMBER = 0.8, 10


@dataclass(frozen=True, slots=True)
class _RowShape:
    """How to tell a row from prose: its number of cells, and what the cells of a column have in common."""

    separator: str
    columns: int
    checks: tuple[tuple[int, Callable[[str], bool]], ...]

    def fits(self, line: str) -> bool:
        """Whether a line, taken by itself and without quotes, could be a row."""
        cells = [cell.strip() for cell in line.replace('"', "").split(self.separator)]
        return len(cells) == self.columns and all(check(cells[column]) for column, check in self.checks)


def require_closed_quotes(origin: str, text: str, records: Sequence[Line], separator: str, skipped: int = 0) -> None:
    """Raises DataError, naming the line, if a quote swallows rows.

    The first of `records` is the header, and `skipped` lines came before `text`. A quote that is never closed gives it
    away, one that is followed by more text of the cell, and a record whose lines each look like a row.
    """
    long = [record for record in records if record.last > record.first]
    if not long:
        return
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    end = len(lines) - (not lines[-1]) + skipped
    shape = _shape_of(records, separator)
    for record in long:
        if record.last > end:
            raise _stray(origin, record.first, end, "never closes")
        own = lines[record.first - 1 - skipped : record.last - skipped]
        if not _is_strict(own, separator):
            raise _stray(origin, record.first, record.last, f"closes in the middle of a cell, in line {record.last}")
        filled = [line for line in own if line.strip()]
        enough = 2 if shape.checks else _LINES_BY_NUMBER
        if shape.columns > 1 and len(filled) >= enough and sum(map(shape.fits, filled)) >= _SHARE * len(filled):
            how = f"closes in line {record.last}, and the lines between look like rows"
            raise _stray(origin, record.first, record.last, how)


def _shape_of(records: Sequence[Line], separator: str) -> _RowShape:
    columns = len(records[0].cells)
    rows = [record.cells for record in records[1:] if record.last == record.first and len(record.cells) == columns]
    checks: list[tuple[int, Callable[[str], bool]]] = []
    for column in range(columns) if len(rows) >= _ROWS_TO_LEARN_FROM else ():
        cells = [row[column].strip() for row in rows]
        labels, ends = set(cells), Counter(cell[-1:] for cell in cells)
        end, count = ends.most_common(1)[0]
        if len(labels) <= min(_LABELS, len(cells) / 2):
            checks.append((column, labels.__contains__))
        elif end and not end.isalnum() and count >= _ALIKE * len(cells):
            checks.append((column, partial(_ends_with, end)))
    return _RowShape(separator, columns, tuple(checks))


def _ends_with(end: str, cell: str) -> bool:
    return cell.endswith(end)


def _is_strict(lines: Sequence[str], separator: str) -> bool:
    try:
        list(csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True))
    except csv.Error as error:
        return "field larger" in str(error)
    return True


def _stray(origin: str, first: int, last: int, how: str) -> DataError:
    rows = f", so that {last - first + 1:,} lines become one row" if last > first else ""
    fix = (
        f"close or remove the quote in line {first}, or if quotes mean nothing there, ",
        Option("set", "data.table.quotes=literal"),
    )
    return DataError(origin, f"a quote in line {first} {how}{rows}", fix)
