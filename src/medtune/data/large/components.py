"""Which rows belong together, however indirectly: a union of sets over an array on disk, 4 bytes a row."""

from pathlib import Path
from typing import Any

import numpy as np

from medtune.data.large.arrays import BLOCK, mapped


class Components:
    """Sets of rows that grow together; each is named after its first row."""

    def __init__(self, path: Path, rows: int) -> None:
        self.rows, self.path = rows, path
        self._parents = mapped(path, np.int32, rows, fill=0)
        for start in range(0, rows, BLOCK):
            stop = min(rows, start + BLOCK)
            self._parents[start:stop] = np.arange(start, stop, dtype=np.int32)

    def of(self, rows: Any) -> Any:
        """The first row of the set that each row is in."""
        found = self._parents[rows]
        while not np.array_equal(above := self._parents[found], found):
            found = above
        self._parents[rows] = found
        return found

    def join(self, first: Any, second: Any) -> None:
        """Put the two rows of each pair into one set."""
        while len(first):
            one, other = self.of(first), self.of(second)
            apart = one != other
            first, second, one, other = first[apart], second[apart], one[apart], other[apart]
            # Where several pairs hang one set onto others, the least wins, and the rest come again.
            np.minimum.at(self._parents, np.maximum(one, other), np.minimum(one, other))

    def settle(self) -> None:
        """Point every row to the first of its set."""
        for start in range(0, self.rows, BLOCK):
            self.of(np.arange(start, min(self.rows, start + BLOCK)))
        if self.rows:
            self._parents.flush()

    def sizes(self, path: Path) -> Any:
        """How many rows each set has, at the place of its first row."""
        counts = mapped(path, np.int32, self.rows, fill=0)
        for start in range(0, self.rows, BLOCK):
            np.add.at(counts, self.of(np.arange(start, min(self.rows, start + BLOCK))), 1)
        return counts
