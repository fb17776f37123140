from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score.tokenize import tokenize

from medtune.evaluation.metrics.unicode_words import unicode_words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The X-ray, 38 °C.", ["the", "x", "ray", "38", "c"]),
        ("Ménière", ["ménière"]),
        ("Me\u0301nie\u0300re", ["ménière"]),
        ("Диабет — болезнь", ["диабет", "болезнь"]),
        ("糖尿病 B12\uff0c病", ["糖", "尿", "病", "b12", "病"]),
        ("मधुमेह है।", ["मधुमेह", "है"]),
        ("당뇨병은 만성", ["당뇨병은", "만성"]),
        ("co\u00adoperate \u0645\u06cc\u200c\u0631\u0648\u062f", ["cooperate", "\u0645\u06cc\u0631\u0648\u062f"]),
        ("snake_case", ["snake", "case"]),
        (" \n", []),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert unicode_words(text) == tokens


def test_english_words_are_stemmed_in_any_text() -> None:
    assert unicode_words("Diabetes лечение causes", PorterStemmer().stem) == ["diabet", "лечение", "caus"]


@given(st.text(st.characters(codec="ascii")))
def test_ascii_text_has_rouge_scores_tokens(text: str) -> None:
    stemmer = PorterStemmer()
    assert unicode_words(text) == tokenize(text, None)
    assert unicode_words(text, stemmer.stem) == tokenize(text, stemmer)
