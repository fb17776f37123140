"""Near-duplicates among answers that do not fit in memory: the exact join of rare shingles, part by part.

Shingles are counted in a table of hash buckets, each answer's rarest ones are written to parts by their hash, and
answers that share one are compared with all their shingles. Groups need connected answers and not every pair, so pairs
that are connected already are not compared.
"""

import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from medtune.data.large import arrays
from medtune.data.large.components import Components
from medtune.data.large.gathering import SHINGLED_ROWS, Gathered
from medtune.data.near_duplicates import are_similar, bucket_bits, rarest_shingles, sizes_allow
from medtune.runtime.progress import progress_bar

# The table of buckets takes 4 bytes each.
_MOST_BITS = 25
# Rare shingles that are sorted at once, and pairs of answers that are compared at once.
PART, _PAIRS = 1 << 22, 8192
# Answers with one rare shingle in common that are compared each with each; of more, one after another, in so many
# rounds, is compared with all that are not yet in a cluster with it.
MOST_ALIKE, ROUNDS = 500, 32


@dataclass(frozen=True, slots=True)
class Searched:
    """How near-duplicates were looked for: among how many different answers, or of how many not, and pairs compared.

    `not_compared` are answers that share a rare shingle with more than `MOST_ALIKE` others, and were compared with one
    of each cluster of these, of `ROUNDS` at most, rather than with all.
    """

    answers: int = 0
    not_searched: int = 0
    pairs: int = 0
    not_compared: int = 0


class _Shingles:
    """The shingles of each row, in order, on disk."""

    def __init__(self, found: Gathered) -> None:
        self.path, self.counts = found.file("shingles"), found.file("shingle_counts")
        total = arrays.length(self.path, np.int64)
        with self.path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._all = np.frombuffer(self._map, np.int64)
        self.ends = arrays.mapped(found.file("shingle_ends"), np.int64, found.rows, fill=0)
        at = 0
        for start, counts in arrays.blocks(self.counts, np.int32):
            self.ends[start : start + len(counts)] = at + np.cumsum(counts, dtype=np.int64)
            at = int(self.ends[start + len(counts) - 1])
        self.total = total

    def sizes(self, rows: Any) -> Any:
        """How many each row has."""
        return self.ends[rows] - np.where(rows > 0, self.ends[np.maximum(rows - 1, 0)], 0)

    def blocks(self, skipped: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Rows that are not `skipped`, how many shingles each has, and these one after another."""
        at = 0
        for start, counts in arrays.blocks(self.counts, np.int32, SHINGLED_ROWS):
            stop = at + int(counts.sum())
            held = arrays.part(self.path, np.int64, at, stop)
            at = stop
            taken = skipped[start : start + len(counts)] == 0
            yield np.flatnonzero(taken) + start, counts[taken].astype(np.int64), held[np.repeat(taken, counts)]

    def matrix(self, rows: Any) -> Any:
        """A sparse matrix with a row for each of `rows`."""
        from scipy.sparse import csr_array

        sizes = self.sizes(rows)
        ends = np.append(0, np.cumsum(sizes))
        places = np.arange(ends[-1]) + np.repeat(self.ends[rows] - ends[1:], sizes)
        held = self._all[places]
        if sys.platform == "linux":
            # Pages that were read stay in the system's cache, and need not count as this process's memory.
            self._map.madvise(mmap.MADV_DONTNEED)
        return csr_array((np.ones(len(held), np.int32), held, ends), shape=(len(rows), 2**63 - 1))


def join_similar(found: Gathered, clusters: Components, repeated: Any, limit: int) -> Searched:
    """Join the clusters of rows with near-duplicate answers; of equal answers the first row stands for all."""
    answers = found.rows - int(np.count_nonzero(repeated))
    if answers > limit or not arrays.length(found.file("shingle_counts"), np.int32):
        return Searched(not_searched=answers)
    shingles = _Shingles(found)
    with progress_bar("Finding rare shingles", 2 * answers, unit="answers") as advance:
        parts = _write_rare(found, shingles, repeated, advance)
    cut = arrays.mapped(found.file("cut"), np.int32, found.rows, fill=-1)
    search = _Search(shingles, clusters, cut)
    with progress_bar("Comparing answers", parts, unit="parts") as advance:
        for part in range(parts):
            search.run(_read_rare(found, part))
            advance(1)
    return Searched(answers, 0, search.pairs, search.not_compared())


_RARE = np.dtype([("shingle", np.int64), ("row", np.int32)])


def _write_rare(found: Gathered, shingles: _Shingles, repeated: Any, advance: Any) -> int:
    """Write the rarest shingles of each answer, in parts by their hash; returns how many parts there are."""
    bits = min(_MOST_BITS, bucket_bits(shingles.total))
    frequency = np.zeros(1 << bits, np.uint32)
    for rows, _, held in shingles.blocks(repeated):
        np.add.at(frequency, held >> (63 - bits), np.uint32(1))
        advance(len(rows))
    # A fifth of an answer's shingles are its rarest.
    parts = 1 + shingles.total // (5 * PART)
    files = [found.file(f"rare-{part}").open("wb") for part in range(parts)]
    try:
        for rows, sizes, held in shingles.blocks(repeated):
            place, rare = rarest_shingles(held, sizes, frequency[held >> (63 - bits)].astype(np.int64))
            entries = np.empty(len(rare), _RARE)
            entries["shingle"], entries["row"] = rare, rows[place]
            # By their last bits: the first ones are the buckets.
            part = rare % parts
            entries = entries[np.argsort(part, kind="stable")]
            ends = np.append(0, np.cumsum(np.bincount(part, minlength=parts)))
            for file, (begin, end) in zip(files, pairwise(ends), strict=True):
                entries[begin:end].tofile(file)
            advance(len(rows))
    finally:
        for file in files:
            file.close()
    return parts


def _read_rare(found: Gathered, part: int) -> tuple[Any, Any]:
    """Rows in order of a part's shingles, and where the runs of each shingle with several rows begin and end."""
    path = found.file(f"rare-{part}")
    entries = np.fromfile(path, _RARE)
    path.unlink()
    entries = entries[np.argsort(entries["shingle"], kind="stable")]
    shingles, rows = entries["shingle"], entries["row"].astype(np.int64)
    begins = arrays.run_begins(shingles)
    runs = np.stack([begins, np.append(begins[1:], len(rows))], axis=1) if len(rows) else np.empty((0, 2), np.int64)
    return rows, runs[runs[:, 1] - runs[:, 0] > 1]


class _Search:
    """Compares answers that share a rare shingle, and joins those that are similar."""

    def __init__(self, shingles: _Shingles, clusters: Components, cut: Any) -> None:
        self._shingles, self._clusters, self._cut = shingles, clusters, cut
        self.pairs = 0

    def run(self, part: tuple[Any, Any]) -> None:
        """Compare the rows of each run of a part."""
        rows, runs = part
        sizes = runs[:, 1] - runs[:, 0]
        for size in np.unique(sizes[sizes <= MOST_ALIKE]):
            # All runs of one length at once, so many that their pairs are not too many.
            chosen = runs[sizes == size, 0]
            one, other = np.triu_indices(size, k=1)
            step = max(1, (1 << 20) // len(one))
            for start in range(0, len(chosen), step):
                begins = chosen[start : start + step, None]
                self._compare(rows[(begins + one).ravel()], rows[(begins + other).ravel()])
        for begin, end in runs[sizes > MOST_ALIKE]:
            self._compare_many(rows[begin:end])

    def _compare_many(self, rows: Any) -> None:
        """Compare the first row with all others, then the first that is not in its cluster, and so on."""
        first = rows[0]
        for _ in range(ROUNDS):
            self._compare(np.full(len(rows) - 1, rows[0]), rows[1:])
            rows = rows[self._clusters.of(rows) != self._clusters.of(rows[:1])]
            # These were compared with one row of that cluster and not with all of it.
            self._cut[rows] = first
            if len(rows) <= MOST_ALIKE:
                one, other = np.triu_indices(len(rows), k=1)
                self._compare(rows[one], rows[other])
                return

    def not_compared(self) -> int:
        """Rows that were not compared with all of a cluster, and are not in it after all."""
        count = 0
        for start in range(0, len(self._cut), arrays.BLOCK):
            first = self._cut[start : start + arrays.BLOCK]
            rows = np.flatnonzero(first >= 0)
            count += int((self._clusters.of(rows + start) != self._clusters.of(first[rows])).sum())
        return count

    def _compare(self, first: Any, second: Any) -> None:
        fits = sizes_allow(self._shingles.sizes(first), self._shingles.sizes(second))
        fits &= self._clusters.of(first) != self._clusters.of(second)
        pairs = np.unique(first[fits] << 32 | second[fits])
        for start in range(0, len(pairs), _PAIRS):
            one, other = pairs[start : start + _PAIRS] >> 32, pairs[start : start + _PAIRS] & 0xFFFFFFFF
            apart = self._clusters.of(one) != self._clusters.of(other)
            one, other = one[apart], other[apart]
            if not len(one):
                continue
            rows, places = np.unique(np.append(one, other), return_inverse=True)
            sets = self._shingles.matrix(rows)
            similar = are_similar(sets, self._shingles.sizes(rows), places[: len(one)], places[len(one) :])
            self.pairs += len(one)
            self._clusters.join(one[similar], other[similar])
