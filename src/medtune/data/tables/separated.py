"""Text with a row a line and a separator between cells: CSV, TSV and their like."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any, Literal

from medtune.data.tables.line import Line
from medtune.data.tables.stray_quotes import require_closed_quotes
from medtune.data.tables.table import ReadTable
from medtune.errors import DataError, Option, show_value

SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
Quotes = Literal["checked", "trusted", "literal"]
_EXCEL_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_ROWS_LOOKED_AT = 50
# Between the cells of a row that is kept aside for people.
_SHOWN = " | "
# The last line that the parser is given, one that no file holds: a quote that is still open would swallow it.
_END = "\x1eend of the file\x1e"


def read_separated(origin: str, text: str, *, usual: str, separator: str | None, quotes: Quotes) -> ReadTable:
    """The rows of `text`, whose first line names the columns.

    Without a `separator` the header tells it, and where it holds none of them it is the `usual` one. Raises DataError,
    in one line, for a file without a header, one whose quotes do not close, or whose first row does not fit.
    """
    skipped = 0
    if found := _EXCEL_LINE.match(text):
        separator, text, skipped = separator or found[1], text[found.end() :], 1
    chosen = separator or _separator_of(text, usual, quotes)
    # A line of blanks is no row; cells that are all empty are one.
    lines = [line for line in parse_lines(text, chosen, quotes, skipped) if len(line.cells) > 1 or _is_filled(line)]
    if not lines:
        raise DataError(origin, "not a readable CSV file (it holds no header)", "check its header and quotes")
    header, body = lines[0], lines[1:]
    if quotes == "checked":
        require_closed_quotes(origin, text, lines, chosen, skipped)
    elif lines[-1].cells[-1].rstrip("\r\n").endswith(_END):
        raise DataError(origin, f"the quote that opens in line {lines[-1].first} never closes", "close or remove it")
    names = column_names(header.cells)
    notes = () if chosen == usual or separator else (f"separator {SEPARATORS[chosen]}",)
    if found:
        notes = (f"separator {SEPARATORS.get(chosen, show_value(chosen))}, from its first line",)
    return _table(origin, names, body, notes)


def _is_filled(line: Line) -> bool:
    return any(map(str.strip, line.cells))


def parse_lines(text: str, separator: str, quotes: Quotes, skipped: int = 0) -> list[Line]:
    """Every record of `text`. Where a quote is never closed, the last one ends with a line that `text` lacks."""
    lines = []
    # The limit is the module's and not the reader's. Far too long a cell is told by whoever knows what it is for.
    before = csv.field_size_limit(len(text) + len(_END) + 1)
    try:
        if quotes == "literal":
            reader = csv.reader(_with_end(text), delimiter=separator, quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(_with_end(text), delimiter=separator)
        first = 1
        for cells in reader:
            lines.append(Line(cells, first + skipped, reader.line_num + skipped))
            first = reader.line_num + 1
    finally:
        csv.field_size_limit(before)
    if lines[-1].cells == [_END]:
        lines.pop()
    return lines


def _with_end(text: str) -> Iterator[str]:
    # Lines end as csv takes them: at "\n", "\r\n" and "\r", and not at the other ends that str.splitlines knows.
    yield from (match[0] for match in _LINE.finditer(text))
    yield _END


_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+\Z")


def _separator_of(text: str, usual: str, quotes: Quotes) -> str:
    """The separator that divides the header into most cells; of several, the one that most rows agree with."""
    sample = "".join(match[0] for match in islice(_LINE.finditer(text.lstrip("\r\n")), _ROWS_LOOKED_AT))
    best, best_key = usual, (1, 0.0, True)
    for separator in (usual, *(other for other in SEPARATORS if other != usual)):
        cells = [len(line.cells) for line in parse_lines(sample, separator, quotes) if line.cells]
        if cells:
            key = (cells[0], sum(n == cells[0] for n in cells) / len(cells), separator == usual)
            if key > best_key:
                best, best_key = separator, key
    return best


def column_names(cells: Sequence[str]) -> list[str | None]:
    """Names of the columns: None for one without a name, and a number behind one that is there before, as in pandas."""
    names: list[str | None] = []
    for cell in cells:
        earlier = sum(name is not None and name.rpartition(".")[0] == cell for name in names) + (cell in names)
        names.append((f"{cell}.{earlier}" if earlier else cell) if cell.strip() else None)
    return names


def _table(origin: str, names: Sequence[str | None], body: Iterable[Line], notes: tuple[str, ...]) -> ReadTable:
    rows: list[dict[str, Any]] = []
    narrow: dict[int, int] = {}
    wide: dict[int, str] = {}
    for number, line in enumerate(body):
        if len(line.cells) > len(names) and (number == 0 or any(map(str.strip, line.cells[len(names) :]))):
            if number == 0:
                raise DataError(origin, "its first row has more cells than its header", "check its header and quotes")
            wide[line.first] = _SHOWN.join(line.cells)
            continue
        if len(line.cells) < len(names):
            narrow[len(rows)] = line.first
        filled = zip_longest(names, line.cells[: len(names)])
        rows.append({name: cell for name, cell in filled if name is not None})
    if wide and len(wide) > len(rows):
        problem = f"{len(wide):,} of its {len(wide) + len(rows):,} rows have more cells than its header, such as line "
        fix = ("check its header and quotes, or its separator with ", Option("set", "data.table.separator=…"))
        raise DataError(origin, f"{problem}{min(wide)}", fix)
    return ReadTable(rows, notes, narrow, wide)
