"""One record of a text table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """Its cells, and the first and last line of the file that it takes, counted from 1."""

    cells: list[str]
    first: int
    last: int
