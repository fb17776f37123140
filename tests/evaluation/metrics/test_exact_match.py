from __future__ import annotations

import re
import string

import pytest

from languages import LANGUAGES
from medtune.evaluation.metrics.exact_match import (
    EXACT_MATCH,
    EXACT_MATCH_SIGNATURE,
    exact_match_rows,
    normalize_answer,
)
from medtune.evaluation.metrics.metric import Answers
from medtune.records import Prediction


def official_normalize_answer(s: str) -> str:
    """SQuAD's `evaluate-v1.1.py`, word for word, as the `squad` metric of `evaluate` carries it."""

    def remove_articles(text: str) -> str:
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text: str) -> str:
        return " ".join(text.split())

    def remove_punc(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    def lower(text: str) -> str:
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Heart,\n and a lung!", "heart and lung"),
        ("a-an the.", "aan"),  # punctuation goes first: articles first would leave "-"
        ("theatre another", "theatre another"),
        ("38 °C — “naïve”", "38 °c — “naïve”"),
        ("flu—the—cold", "flu— —cold"),
        ("", ""),
        ("The", ""),
    ],
)
def test_normalize_answer(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized == official_normalize_answer(text)


def test_rows() -> None:
    predictions = ["The flu.", "flu", "influenza", "", "", "Flu\n"]
    references = ["flu", "a FLU!", "flu", "flu", "the", "flu"]
    assert exact_match_rows(predictions, references) == [1, 1, 0, 0, 1, 1]


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        exact_match_rows(["one", "two"], ["one"])


def test_no_letter_of_any_script_is_lost() -> None:
    for language in LANGUAGES.values():
        for text in language.references:
            assert [c for c in normalize_answer(text) if c.isalpha()] == [c for c in text.lower() if c.isalpha()]


def test_of_several_references_the_best_counts() -> None:
    texts = ("Flu.", "Influenza.")
    rows = [Prediction("1", "", "Flu.", answer, references=texts) for answer in ("influenza", "Flu", "gout")]
    (measured,) = EXACT_MATCH.measure(Answers(rows), [EXACT_MATCH])
    assert measured.rows[:, 0].tolist() == [1, 1, 0]
    assert measured.signature == EXACT_MATCH_SIGNATURE + "|nrefs:2|over-references:max"


def test_signature() -> None:
    assert EXACT_MATCH_SIGNATURE.startswith("exact-match:squad-v1.1")
