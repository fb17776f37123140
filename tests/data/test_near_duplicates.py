from __future__ import annotations

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audits import jaccard, shingles
from medtune.data.cleaning import Cleaned, normalize_answer
from medtune.data.near_duplicates import SimilarAnswers, find_similar_answers

LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Words of a text in which a few are replaced, so that similarities on both sides of the threshold are common.
BASE = " ".join(LETTERS) + " " + " ".join(f"{letter}{letter}" for letter in LETTERS)


@st.composite
def answers(draw: st.DrawFn) -> list[str]:
    texts = []
    for _ in range(draw(st.integers(0, 12))):
        tokens = BASE.split()[: draw(st.sampled_from([1, 3, 4, 5, 6, 12, 52]))]
        for place in draw(st.lists(st.integers(0, len(tokens) - 1), max_size=2)):
            tokens[place] = draw(st.sampled_from(["x1", "x2", "GOUT,"]))
        texts.append(" ".join(tokens))
    return texts


def plain_edges(texts: list[str]) -> set[frozenset[str]]:
    """Every pair, one by one."""
    distinct = {normalize_answer(text) for text in texts}
    return {frozenset(pair) for pair in combinations(distinct, 2) if jaccard(*pair) >= 0.8}


def edges_as_texts(texts: list[str], found: SimilarAnswers) -> set[frozenset[str]]:
    text_of = {number: normalize_answer(text) for number, text in zip(found.answer_of, texts, strict=True)}
    return {frozenset((text_of[first], text_of[second])) for first, second in found.edges}


def test_shingles_are_runs_of_five_words() -> None:
    assert shingles("a b c d e f") == {("a", "b", "c", "d", "e"), ("b", "c", "d", "e", "f")}
    assert shingles("a b c d e") == {("a", "b", "c", "d", "e")}
    assert shingles("a b") == {("a", "b")}


def test_jaccard_is_the_share_of_common_shingles() -> None:
    # Ten words have six shingles; another last word changes one of them: 5 of 7 are common.
    assert jaccard("a b c d e f g h i j", "A, b c d e f g h i K!") == pytest.approx(5 / 7)
    # Thirteen words: 8 of 10 are common, exactly the threshold.
    assert jaccard(" ".join(LETTERS[:13]), " ".join(LETTERS[:12]) + " zz") == pytest.approx(8 / 10)
    assert jaccard("a b c", "a b c") == 1
    assert jaccard("a b c", "a b d") == 0


def test_the_threshold_itself_counts() -> None:
    at = [" ".join(LETTERS[:13]), " ".join(LETTERS[:12]) + " zz"]
    below = [" ".join(LETTERS[:12]), " ".join(LETTERS[:11]) + " zz"]  # 7 of 9
    assert find_similar_answers(at).edges == [(0, 1)]
    assert find_similar_answers(below).edges == []


def test_rows_with_the_same_words_share_an_answer() -> None:
    found = find_similar_answers(["Gout hurts.", "Rest.", "gout  HURTS", "—", "…", "—"])
    first, rest, again, dash, dots, dash_again = found.answer_of
    assert first == again
    assert dash == dash_again
    assert len({first, rest, dash, dots}) == 4
    assert found.edges == []
    assert found.neighbours() == {}


def test_no_answers() -> None:
    assert find_similar_answers([]) == SimilarAnswers([], [])


def test_neighbours_are_both_ways() -> None:
    assert SimilarAnswers([0, 1, 2, 3], [(0, 1), (1, 3)]).neighbours() == {0: {1}, 1: {0, 3}, 3: {1}}


def test_progress_counts_every_row_once() -> None:
    done: list[int] = []
    find_similar_answers(["a b c", "A b c", "d e f"], done.append)
    assert sum(done) == 3


@given(answers(), st.randoms(use_true_random=False))
def test_edges_are_those_of_the_plain_algorithm_in_any_order(texts: list[str], shuffler: random.Random) -> None:
    found = find_similar_answers(texts)
    assert edges_as_texts(texts, found) == plain_edges(texts)
    assert all(first < second for first, second in found.edges)
    order = list(range(len(texts)))
    shuffler.shuffle(order)
    mixed = find_similar_answers([texts[i] for i in order])
    assert mixed.edges == found.edges
    assert mixed.answer_of == [found.answer_of[i] for i in order]


def test_a_sample_of_medquad_has_the_edges_of_the_plain_algorithm(
    medquad_cleaned: Cleaned, medquad_similar: SimilarAnswers
) -> None:
    """Rows of one type resemble each other most: all pairs of 800 of them, brute force, at most 320,000 a type."""
    numbered = list(zip(medquad_cleaned.pairs, medquad_similar.answer_of, strict=True))
    edges = set(medquad_similar.edges)
    checked = 0
    for qtype in ("symptoms", "inheritance", "research"):
        distinct = {number: pair.answer for pair, number in numbered if pair.qtype == qtype}
        sample = sorted(random.Random(1).sample(sorted(distinct), min(350, len(distinct))))
        sets = {number: shingles(normalize_answer(distinct[number])) for number in sample}
        for first, second in combinations(sample, 2):
            shared = len(sets[first] & sets[second])
            similar = shared / (len(sets[first]) + len(sets[second]) - shared) >= 0.8
            assert similar == ((first, second) in edges)
            checked += similar
    assert checked > 300
