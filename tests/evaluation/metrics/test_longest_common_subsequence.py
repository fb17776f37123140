from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from medtune.evaluation.metrics.longest_common_subsequence import Candidate

TOKENS = st.lists(st.sampled_from("abcd"), max_size=40)


@given(TOKENS, TOKENS)
def test_length_equals_the_table(reference: list[str], candidate: list[str]) -> None:
    assert Candidate(candidate).length(reference) == rouge_scorer._lcs_table(reference, candidate)[-1][-1]


@given(TOKENS, TOKENS)
def test_of_several_subsequences_it_is_rouge_scores(reference: list[str], candidate: list[str]) -> None:
    matched = Candidate(candidate).matched(reference)
    assert matched[::-1] == rouge_scorer.lcs_ind(reference, candidate)


def test_a_tie_goes_back_along_the_reference() -> None:
    # Both "a" and "b" are longest; rouge-score keeps the reference's earlier token.
    assert Candidate(["b", "a"]).matched(["a", "b"]) == [0]
    assert Candidate(["b", "a"]).length(["a", "b"]) == 1


def test_nothing_shared_and_nothing_there() -> None:
    for candidate, reference in (([], ["a"]), (["a"], []), ([], []), (["a"], ["b"])):
        assert Candidate(candidate).length(reference) == 0
        assert Candidate(candidate).matched(reference) == []


def test_beyond_the_bits_of_a_machine_word() -> None:
    candidate = [str(number) for number in range(300)]
    assert Candidate(candidate).length(candidate[::2]) == 150
    assert Candidate(candidate).matched(candidate[::3]) == list(range(99, -1, -1))


def test_one_candidate_serves_many_references() -> None:
    candidate = Candidate(["a", "b", "c"])
    assert [candidate.length(list(text)) for text in ("abc", "cba", "ac", "")] == [3, 1, 2, 0]
