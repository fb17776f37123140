"""What a reader gives: rows as mappings, the choices it made, and the rows whose cells do not fit the header."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ReadTable:
    """Rows of one file, each a mapping from column to value.

    `notes` say in a few words what was found and not given, such as the separator. `narrow` maps the place of a row
    with fewer cells than the header, None in the columns that it ends before, to its line; `wide` maps the line of
    a row with more, which is not among `rows`, to its text.
    """

    rows: Iterable[Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    narrow: Mapping[int, int] = field(default_factory=dict)
    wide: Mapping[int, str] = field(default_factory=dict)
