"""Near-duplicate answers: all pairs whose sets of word shingles have a Jaccard similarity of 0.8 or more."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from medtune.data.cleaning import normalize_answer

THRESHOLD = 0.8
SHINGLE_WORDS = 5

_TENTHS = int(10 * THRESHOLD)
_SEED = 1
# Possible pairs that are held at once, and pairs whose shingles are compared at once.
_CHUNK, _PAIRS = 2_000_000, 8192


@dataclass(frozen=True, slots=True)
class SimilarAnswers:
    """Which rows have equal or similar answers.

    `answer_of` gives each row the number of its answer; rows whose answers have the same words share one. `edges` are
    the pairs (first < second) of such numbers whose similarity is at least `THRESHOLD`. `earlier_of` gives each row the
    numbers of the answers before its last, and is empty where no row has any.
    """

    answer_of: list[int]
    edges: list[tuple[int, int]]
    earlier_of: list[list[int]] = field(default_factory=list)

    def all_of(self) -> list[list[int]]:
        """The numbers of all answers of each row."""
        earlier = self.earlier_of or [[] for _ in self.answer_of]
        return [[last, *others] for last, others in zip(self.answer_of, earlier, strict=True)]

    def neighbours(self) -> dict[int, set[int]]:
        """Each answer's near-duplicates; answers without one are left out."""
        found: dict[int, set[int]] = defaultdict(set)
        for first, second in self.edges:
            found[first].add(second)
            found[second].add(first)
        return dict(found)


def find_similar_answers(
    answers: Sequence[str],
    advance: Callable[[int], None] = lambda rows: None,
    earlier: Sequence[Sequence[str]] = (),
) -> SimilarAnswers:
    """Find equal and near-duplicate answers, among them the `earlier` ones of each row if they are given.

    Independent of the order of the rows, the numbers of the answers included. `advance` is called with the number of
    answers done since its last call.
    """
    normalized = [normalize_answer(answer) for answer in (*answers, *chain.from_iterable(earlier))]
    # Sorted, so that every id and hash below is the same whatever order the rows came in.
    distinct = sorted(set(normalized))
    number = {text: i for i, text in enumerate(distinct)}
    advance(len(normalized) - len(distinct))
    edges = _similar_pairs(shingle_sets(distinct), advance) if distinct else []
    numbers = iter([number[text] for text in normalized])
    last = list(islice(numbers, len(answers)))
    return SimilarAnswers(last, edges, [list(islice(numbers, len(texts))) for texts in earlier] if any(earlier) else [])


def shingle_sets(texts: Sequence[str], number: Callable[[str], int] = hash) -> Any:
    """A sparse matrix, one row an answer and one column a shingle's hash, with 1 where the answer has it.

    A shingle is a run of five words; a shorter answer is one. Hashes have 63 bits: two of a hundred million shingles
    share one with a probability of one in two thousand. `number` gives a word a number of 64 bits.
    """
    import numpy as np
    from scipy.sparse import csr_array

    lengths = np.fromiter((text.count(" ") + 1 for text in texts), np.int64, len(texts))
    words = " ".join(texts).split(" ")
    hashes = np.fromiter(map(number, words), np.int64, len(words)).view(np.uint64)
    ends = np.cumsum(lengths)
    left = np.repeat(ends, lengths) - np.arange(len(hashes))  # words left in the answer, itself included
    # A sum with random odd factors: unlike a product of the five numbers, it tells their order apart.
    factors = np.random.default_rng(_SEED).integers(2**64, size=SHINGLE_WORDS, dtype=np.uint64) | np.uint64(1)
    shingles = hashes * factors[0]
    for place in range(1, SHINGLE_WORDS):
        shingles[:-place] += np.where(left[:-place] > place, hashes[place:] * factors[place], np.uint64(0))
    counts = np.maximum(1, lengths - SHINGLE_WORDS + 1)
    begins = np.arange(len(hashes)) - np.repeat(ends - lengths, lengths) < np.repeat(counts, lengths)
    ids = (shingles[begins] >> np.uint64(1)).astype(np.int64)
    matrix = csr_array(
        (np.ones(len(ids), np.int32), ids, np.append(0, np.cumsum(counts))), shape=(len(texts), 2**63 - 1)
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _similar_pairs(sets: Any, advance: Callable[[int], None]) -> list[tuple[int, int]]:
    """Pairs of rows, first < second, whose Jaccard similarity is at least `THRESHOLD`, in order."""
    import numpy as np
    from scipy.sparse import triu

    sizes = np.diff(sets.indptr)
    rare = _rarest_shingles(sets, sizes)
    # What a row shares with all others at most, so that a chunk's pairs are few enough to hold.
    work = np.cumsum(rare @ rare.sum(axis=0))
    edges: list[tuple[int, int]] = []
    begin = 0
    while begin < len(sizes):
        end = max(begin + 1, int(np.searchsorted(work, (work[begin - 1] if begin else 0) + _CHUNK, side="right")))
        first, second = triu(rare[begin:end] @ rare[begin:].T, k=1).coords
        first, second = first + begin, second + begin
        fits = sizes_allow(sizes[first], sizes[second])
        edges += _verified(sets, sizes, first[fits], second[fits])
        advance(end - begin)
        begin = end
    return sorted(edges)


def _rarest_shingles(sets: Any, sizes: Any) -> Any:
    """Each row's rarest shingles, as many as it takes for every two similar rows to have one in common.

    A similar row shares at least 0.8 n of n shingles. In one order of all shingles, the first that they share is then
    among the first n - 0.8 n + 1 of both (Chaudhuri, Ganti and Kaushik, ICDE 2006). Rare ones first, so that few
    other rows have them; one that no other row has is left out.
    """
    import numpy as np
    from scipy.sparse import csr_array

    buckets = sets.indices >> (63 - bucket_bits(len(sets.indices)))
    frequency = np.bincount(buckets)[buckets]
    rows, rare = rarest_shingles(sets.indices, sizes, frequency)
    shingles, columns = np.unique(rare, return_inverse=True)
    ends = np.searchsorted(rows, np.arange(len(sizes) + 1))
    return csr_array((np.ones(len(columns), np.int64), columns, ends), shape=(len(sizes), len(shingles)))


def bucket_bits(shingles: int) -> int:
    """The first bits of a hash by which so many shingles are counted.

    One order of all is enough, and it need not be exact; only a count of 1 has to be true.
    """
    return min(26, max(16, shingles.bit_length() + 2))


def rarest_shingles(shingles: Any, sizes: Any, frequency: Any) -> tuple[Any, Any]:
    """The rows and the shingles of `_rarest_shingles`, from those of all rows one after another and their counts."""
    import numpy as np

    rows = np.repeat(np.arange(len(sizes)), sizes)
    # Stable, so that shingles of one frequency stay in the order of their hashes in every row.
    order = np.argsort(rows * (int(frequency.max(initial=0)) + 1) + frequency, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    least_shared = -(-_TENTHS * sizes // 10)
    kept = (place < np.repeat(sizes - least_shared + 1, sizes)) & (frequency[order] > 1)
    return rows[kept], shingles[order][kept]


def sizes_allow(first: Any, second: Any) -> Any:
    """Whether sets of these sizes can be similar: similarity is at most the smaller one over the larger."""
    import numpy as np

    return 10 * np.minimum(first, second) >= _TENTHS * np.maximum(first, second)


def are_similar(sets: Any, sizes: Any, first: Any, second: Any) -> Any:
    """Whether each pair of rows has a Jaccard similarity of at least `THRESHOLD`."""
    shared = sets[first].multiply(sets[second]).sum(axis=1)
    # In whole numbers: rounding must not lose a quotient of exactly 0.8.
    return 10 * shared >= _TENTHS * (sizes[first] + sizes[second] - shared)


def _verified(sets: Any, sizes: Any, first: Any, second: Any) -> list[tuple[int, int]]:

    edges: list[tuple[int, int]] = []
    for begin in range(0, len(first), _PAIRS):
        one, other = first[begin : begin + _PAIRS], second[begin : begin + _PAIRS]
        similar = are_similar(sets, sizes, one, other)
        edges += zip(one[similar].tolist(), other[similar].tolist(), strict=True)
    return edges
