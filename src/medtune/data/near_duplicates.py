"""Near-duplicate answers: MinHash proposes pairs of answers, and each one's exact Jaccard similarity decides."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from medtune.data.cleaning import normalize_answer

THRESHOLD = 0.8
SHINGLE_WORDS = 5

# 32 bands of 4 hashes miss a pair of similarity s with probability (1 - s^4)^32: one in twenty million at 0.8. Pairs
# far below the threshold come along, so their similarity is first guessed from the share of equal hashes: at 0.8 the
# guess has a standard deviation of 0.035, and 0.6 is nearly six of them away.
_BANDS, _BAND_HASHES = 32, 4
_LEAST_GUESS = 0.6
_SEED = 1
_CHUNK = 8192


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
    edges = _similar_pairs(_shingle_matrix(distinct), advance) if distinct else []
    numbers = iter([number[text] for text in normalized])
    last = list(islice(numbers, len(answers)))
    return SimilarAnswers(last, edges, [list(islice(numbers, len(texts))) for texts in earlier] if any(earlier) else [])


def _shingle_matrix(texts: Sequence[str]) -> Any:
    """A sparse matrix, one row an answer and one column a shingle, with 1 where the answer has it.

    A shingle is a run of five words; a shorter answer is one.
    """
    import numpy as np
    from scipy.sparse import csr_array

    vocabulary: dict[str, int] = {}
    tokens = [[vocabulary.setdefault(word, len(vocabulary)) for word in text.split(" ")] for text in texts]
    lengths = np.array([len(row) for row in tokens])
    # Words are numbered from 1: the 0s that fill up a short answer are no word.
    flat = np.concatenate([np.array([*row, *[-1] * (SHINGLE_WORDS - 1)], dtype=np.int64) for row in tokens]) + 1
    ids = flat
    for shift in range(1, SHINGLE_WORDS):
        following = np.zeros_like(flat)
        following[:-shift] = flat[shift:]
        # Numbering (shingle so far, next word) keeps ids small, where a product of five numbers would overflow.
        ids = np.unique(ids * (len(vocabulary) + 1) + following, return_inverse=True)[1]
    starts = np.cumsum(lengths + SHINGLE_WORDS - 1) - (lengths + SHINGLE_WORDS - 1)
    counts = np.maximum(1, lengths - SHINGLE_WORDS + 1)
    columns = [np.unique(ids[start : start + count]) for start, count in zip(starts, counts, strict=True)]
    ends = np.cumsum([0, *map(len, columns)])
    data = np.ones(ends[-1], dtype=np.int32)
    return csr_array((data, np.concatenate(columns), ends), shape=(len(texts), int(ids.max()) + 1))


def _similar_pairs(matrix: Any, advance: Callable[[int], None]) -> list[tuple[int, int]]:
    import numpy as np
    from datasketch import MinHash, MinHashLSH

    sizes = np.diff(matrix.indptr)
    # The ids need no other hash: MinHash permutes them anyway.
    empty = MinHash(num_perm=_BANDS * _BAND_HASHES, seed=_SEED, hashfunc=int)
    index = MinHashLSH(num_perm=_BANDS * _BAND_HASHES, params=(_BANDS, _BAND_HASHES))
    hashes = np.empty((len(sizes), _BANDS * _BAND_HASHES), dtype=np.uint64)
    edges: list[tuple[int, int]] = []
    pending: list[tuple[int, int]] = []
    for row in range(len(sizes)):
        sketch = empty.copy()
        sketch.update_batch(matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]].tolist())
        hashes[row] = sketch.hashvalues
        found = np.array(index.query(sketch), dtype=np.int64)
        # Similarity is at most the smaller set's size over the larger one's.
        fits = np.minimum(sizes[found], sizes[row]) >= THRESHOLD * np.maximum(sizes[found], sizes[row])
        likely = found[fits][(hashes[found[fits]] == hashes[row]).mean(axis=1) >= _LEAST_GUESS]
        pending += [(other, row) for other in likely.tolist()]
        index.insert(row, sketch)
        if len(pending) >= _CHUNK:
            edges += _verified(matrix, sizes, pending)
            pending = []
        advance(1)
    return sorted(edges + _verified(matrix, sizes, pending))


def _verified(matrix: Any, sizes: Any, pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    import numpy as np

    if not pairs:
        return []
    first, second = np.array(pairs).T
    shared = matrix[first].multiply(matrix[second]).sum(axis=1)
    # In whole numbers: rounding must not lose a quotient of exactly 0.8.
    similar = 10 * shared >= int(10 * THRESHOLD) * (sizes[first] + sizes[second] - shared)
    return [pair for pair, is_similar in zip(pairs, similar.tolist(), strict=True) if is_similar]
