"""Arrays on disk, read in blocks: what is known of every row, where all rows would not fit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Entries that are held at once.
BLOCK = 1 << 20


def append(path: Path, values: Any) -> None:
    """Write `values` behind those that are there."""
    with path.open("ab") as file:
        values.tofile(file)


def length(path: Path, dtype: Any) -> int:
    """Entries of an array, 0 where there is no file."""
    return path.stat().st_size // np.dtype(dtype).itemsize if path.exists() else 0


def part(path: Path, dtype: Any, start: int, stop: int) -> Any:
    """The entries from `start` to `stop`."""
    return np.fromfile(path, dtype, max(0, stop - start), offset=start * np.dtype(dtype).itemsize)


def blocks(path: Path, dtype: Any, size: int | None = None) -> Iterator[tuple[int, Any]]:
    """All entries, block by block of `size`, each with the place of its first."""
    with path.open("rb") as file:
        start = 0
        while len(values := np.fromfile(file, dtype, size or BLOCK)):
            yield start, values
            start += len(values)


def mapped(path: Path, dtype: Any, size: int, *, fill: int | None = None) -> Any:
    """An array that can be changed in place, of `fill` where it is new."""
    if fill is None:
        return np.memmap(path, dtype, "r+", shape=size) if size else np.empty(0, dtype)
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            np.full(min(BLOCK, size - start), fill, dtype).tofile(file)
    return mapped(path, dtype, size)


def keep_only(path: Path, dtype: Any, alive: Any) -> None:
    """Leave out the entries that are not `alive`."""
    shorter = path.with_name(f"{path.name}.kept")
    with shorter.open("wb") as file:
        for start, values in blocks(path, dtype):
            values[alive[start : start + len(values)].astype(bool)].tofile(file)
    shorter.replace(path)


def run_begins(values: Any) -> Any:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])


def equal_runs(path: Path, *, skip_zero: bool = True) -> Iterator[tuple[Any, Any]]:
    """Rows with equal keys, and for each the first row with its key, a part of all keys at a time.

    Keys are hashes of 64 bits; 0 stands for none. Rows are in order within a key, and keys with one row are left out.
    """
    parts = _parts(length(path, np.uint64))
    for number in range(parts):
        rows, keys = [], []
        for start, values in blocks(path, np.uint64):
            chosen = values % np.uint64(parts) == number
            if skip_zero:
                chosen &= values != 0
            rows.append(np.flatnonzero(chosen) + start)
            keys.append(values[chosen])
        found, values = _joined(rows, np.int64), _joined(keys, np.uint64)
        order = np.argsort(values, kind="stable")
        found, values = found[order], values[order]
        begins = run_begins(values)
        sizes = np.diff(np.append(begins, len(values)))
        several = np.repeat(sizes > 1, sizes)
        yield found[several], np.repeat(found[begins], sizes)[several]


def distinct_count(path: Path) -> int:
    """How many different keys there are, 0 not among them."""
    keys = sum(int(np.count_nonzero(values)) for _, values in blocks(path, np.uint64))
    return keys - sum(int(np.count_nonzero(rows != first)) for rows, first in equal_runs(path))


def distinct_pairs(first: Path, second: Path, keys: Any = np.uint64) -> Iterator[tuple[Any, Any]]:
    """The different pairs of a key in `first` and one in `second` of a row, in order of keys, a part at a time.

    No part has keys of another. Pairs with a 0 are left out.
    """
    parts = _parts(length(first, keys))
    for number in range(parts):
        one, other = [], []
        for (_, left), (_, right) in zip(blocks(first, keys), blocks(second, keys), strict=True):
            chosen = (left % keys(parts) == number) & (left != 0) & (right != 0)
            one.append(left[chosen])
            other.append(right[chosen])
        left, right = _joined(one, keys), _joined(other, keys)
        order = np.lexsort((right, left))
        left, right = left[order], right[order]
        new = np.append(True, (left[1:] != left[:-1]) | (right[1:] != right[:-1]))[: len(left)]
        yield left[new], right[new]


def _parts(rows: int) -> int:
    return max(1, -(-rows // (2 * BLOCK)))


def _joined(found: list[Any], dtype: Any) -> Any:
    return np.concatenate(found) if found else np.empty(0, dtype)
