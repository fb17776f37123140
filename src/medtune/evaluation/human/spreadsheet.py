"""The sheet as CSV, safe to open in a spreadsheet, and what comes back from one."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from medtune.data.tables.workbook import read_workbook
from medtune.errors import DataError
from medtune.evaluation.human.blinding import Item
from medtune.evaluation.human.rubric import CRITERIA, RATING_COLUMNS, SCALE, SIDES, rating_column
from medtune.storage.reading import MAX_SETTINGS_BYTES

# A spreadsheet reads a cell as a formula if it begins with one of =, +, - and @ (or their full-width forms), and some
# skip white space before it. One that splits at semicolons or tabs makes cells out of the middle of ours, where a
# quotation mark may come first.
_FORMULA = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_BEFORE = rf'(?:[^\S\r\n]|")*[{_FORMULA}]'
_FORMULA_START = re.compile(rf"(^|[;\t\r\n])(?={_BEFORE})|^(?=[\t\r\n])")
_DISARMED_START = re.compile(rf"(^|[;\t\r\n])'(?={_BEFORE})|^'(?=[\t\r\n])")
_DELIMITERS = (",", ";", "\t")
# How Excel's, LibreOffice's and Numbers' own files begin: they are zip archives.
_WORKBOOK = b"PK\x03\x04"
_MAX_ROWS = 100_000
_COLUMNS = {"sheet", "item", "rater", "preference", "comment", *RATING_COLUMNS}


@dataclass(frozen=True, slots=True)
class Spreadsheet:
    """Rows of a spreadsheet as column → text; columns under the names that `sheet_csv` gives them."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def disarm(text: str) -> str:
    """Put an apostrophe before everything in `text` that a spreadsheet could run as a formula."""
    return _FORMULA_START.sub(r"\1'", text)


def rearm(text: str) -> str:
    """Take the apostrophes of `disarm` away."""
    return _DISARMED_START.sub(r"\1", text)


def sheet_csv(
    sheet: str, items: Sequence[Item], rater: str = "", given: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """The sheet, with cells for the ratings; the text begins with a byte order mark, for Excel.

    The cells are empty but for what `rater` has `given`: a rating's column, `preference` or `comment` → text, by item.

    The first line's cells say what 1 and 5 mean, in brackets that `read_spreadsheet` takes off again.
    """
    header = ["sheet", "item", "rater", "question", "reference", "answer_a", "answer_b"]
    for criterion in CRITERIA:
        legend = f"({SCALE[0]} = {criterion.lowest}, {SCALE[-1]} = {criterion.highest})"
        header += [f"{rating_column(criterion.name, side)} {legend}" for side in SIDES]
    header += ["preference (A, B or tie)", "comment"]
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(header)
    for item in items:
        texts = (item.question, item.reference, item.answer_a, item.answer_b)
        cells = (given or {}).get(item.name, {})
        filled = [cells.get(column, "") for column in (*RATING_COLUMNS, "preference", "comment")]
        writer.writerow([sheet, item.name, disarm(rater), *map(disarm, (*texts, *filled))])
    return "\ufeff" + out.getvalue()


def read_spreadsheet(path: Path) -> Spreadsheet:
    """Read CSV as spreadsheets save it: comma, semicolon or tab; UTF-8, UTF-16 or Windows' Western code page.

    It takes the first sheet with rows of a workbook. Raises DataError if the file cannot be read or holds no row.
    """
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            fix = "give a filled sheet or the page's export"
            raise DataError(path, f"larger than {MAX_SETTINGS_BYTES:,} bytes", fix)
        data = path.read_bytes()
    except OSError as error:
        fix = "give a filled sheet or the page's export"
        raise DataError(path, f"cannot be read ({error.strerror})", fix) from None
    if data.startswith(_WORKBOOK):
        table = read_workbook(path, None, _MAX_ROWS, MAX_SETTINGS_BYTES)
        rows = [{_column_name(column): cell.strip() for column, cell in row.items()} for row in table.rows]
        return Spreadsheet(tuple(rows[0]) if rows else (), tuple(rows))
    text = _decode(data)
    try:
        header = text.lstrip().splitlines()[:1]
        # Legends hold commas too: the delimiter is the one under which most columns are ours.
        found = {sign: [*chain(*csv.reader(header, delimiter=sign))] for sign in _DELIMITERS}
        delimiter = max(_DELIMITERS, key=lambda sign: len(_COLUMNS & set(map(_column_name, found[sign]))))
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    except csv.Error as error:
        raise DataError(path, f"not a CSV file ({error})", "save the sheet as CSV again") from None
    if len(lines) < 2:
        raise DataError(path, "empty", "give a filled sheet or the page's export")
    columns = tuple(_column_name(cell) for cell in lines[0])
    return Spreadsheet(
        columns, tuple(dict(zip(columns, (cell.strip() for cell in line), strict=False)) for line in lines[1:])
    )


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Excel's plain "CSV". Ratings are ASCII; only a comment or a name can come out wrong.
        return data.decode("cp1252", errors="replace")


def _column_name(cell: str) -> str:
    return re.sub(r"[\s-]+", "_", cell.partition("(")[0].strip().lower())
