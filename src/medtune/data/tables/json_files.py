"""Rows in JSON: one object a line, an array of objects, or an object around a list of them or of columns."""

from collections.abc import Iterator, Mapping
from typing import Any

from medtune.data.tables.table import ReadTable
from medtune.errors import DataError
from medtune.storage.reading import DamagedError, parse_json

_NEEDED = "an array of objects, or an object that holds one, is needed"


def read_json_lines(origin: str, text: str) -> ReadTable:
    """Rows of a JSONL file, also of one that holds an array of objects instead. Raises DataError, naming the line."""
    if text.lstrip().startswith("[") and (rows := _array(text)):
        return ReadTable(rows, ("one array and not an object a line",))
    return ReadTable(read_lines(origin, text))


def read_lines(origin: str, text: str, first: int = 1) -> Iterator[dict[str, Any]]:
    """Objects of `text`, one a line from line `first` on. Raises DataError, naming `origin` and the line."""
    for number, line in enumerate(text.split("\n"), start=first):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except DamagedError as error:
            raise DataError(origin, f"line {number} is {error}", "one object a line is needed") from None
        if not isinstance(row, dict):
            raise DataError(origin, f"line {number} is a {type(row).__name__}", "one object a line is needed")
        yield row


def read_json(origin: str, text: str) -> ReadTable:
    """Rows of a JSON file: `[{…}, …]`, `{"data": [{…}, …]}`, `{"question": […], …}`, or one object a line after all.

    Raises DataError, in one line, for anything else.
    """
    try:
        value = parse_json(text)
    except DamagedError as error:
        if text.lstrip().startswith("{") and "\n" in text.strip():
            return ReadTable(list(read_lines(origin, text)), ("an object a line and not one array",))
        raise DataError(origin, str(error), _NEEDED) from None
    if isinstance(value, dict):
        return _from_object(origin, value)
    if not isinstance(value, list):
        raise DataError(origin, f"holds a {type(value).__name__}", _NEEDED)
    return ReadTable(_checked(origin, value))


def _array(text: str) -> list[Any] | None:
    try:
        value = parse_json(text)
    except DamagedError:
        return None
    return value if isinstance(value, list) and all(isinstance(row, dict) for row in value) else None


def _checked(origin: str, rows: list[Any]) -> list[dict[str, Any]]:
    wrong = next((place for place, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise DataError(origin, f"row {wrong} is a {type(rows[wrong]).__name__}", "each row must be an object")
    return rows


def _from_object(origin: str, value: Mapping[str, Any]) -> ReadTable:
    rows = {name: held for name, held in value.items() if isinstance(held, list) and held and isinstance(held[0], dict)}
    if len(rows) == 1:
        ((name, held),) = rows.items()
        return ReadTable(_checked(origin, held), (f"rows from its list {name!r}",))
    if len(rows) > 1:
        shown = " and ".join(map(repr, rows))
        raise DataError(origin, f"holds several lists of objects, {shown}", "save the one with the rows by itself")
    columns = [_cells(held) for held in value.values()]
    if columns and all(cells is not None and len(cells) == len(columns[0] or ()) for cells in columns):
        names = list(value)
        rows_of = zip(*(cells for cells in columns if cells is not None), strict=True)
        return ReadTable([dict(zip(names, row, strict=True)) for row in rows_of], ("a list for each column",))
    if value and not any(isinstance(held, list | dict) for held in value.values()):
        return ReadTable([dict(value)])  # JSONL of one line
    raise DataError(origin, "holds an object without a list of rows", _NEEDED)


def _cells(held: Any) -> list[Any] | None:
    """The cells of one column: a list, or as pandas writes it an object from row label to cell."""
    cells = list(held.values()) if isinstance(held, dict) else held
    return cells if isinstance(cells, list) and not any(isinstance(cell, dict) for cell in cells) else None
