from __future__ import annotations

import pytest

from languages import LANGUAGES
from medtune.errors import ConfigError
from medtune.evaluation.metrics import bleu_tokenizer
from medtune.evaluation.metrics.bleu_tokenizer import choose_tokenizer, is_read, require_tokenizer

JAPANESE = "これは糖尿病についての文章です。"
KOREAN = "당뇨병은 만성 질환이며 치료가 필요합니다."
INDIAN = "मधुमेह एक पुरानी बीमारी है।"


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_tokenizer_of_a_script(name: str) -> None:
    assert choose_tokenizer("auto", LANGUAGES[name].references) == (LANGUAGES[name].tokenizer, "")


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("Gout hurts.", "13a"),
        ("L'été, Ménière a mal à l'oreille.", "13a"),
        ("Bệnh tiểu đường là bệnh mãn tính.", "13a"),
        ("", "13a"),
        ("38 °C", "13a"),
        (INDIAN, "intl"),
        ("\u039f διαβήτης είναι χρόνια νόσος.", "intl"),
        ("Gout, 痛风.", "13a"),
    ],
)
def test_most_letters_decide(text: str, tokenizer: str) -> None:
    assert choose_tokenizer("auto", [text]) == (tokenizer, "")


@pytest.mark.parametrize(("text", "better"), [(JAPANESE, "ja-mecab"), (KOREAN, "ko-mecab")])
def test_characters_where_a_package_is_not_installed_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch, text: str, better: str
) -> None:
    monkeypatch.setattr(bleu_tokenizer, "find_spec", lambda name: None)
    assert choose_tokenizer("auto", [text]) == ("char", better)
    monkeypatch.setattr(bleu_tokenizer, "find_spec", lambda name: name)
    assert choose_tokenizer("auto", [text]) == (better, "")


def test_a_recipe_may_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_tokenizer("char", ["Gout hurts."]) == ("char", "")
    monkeypatch.setattr(bleu_tokenizer, "find_spec", lambda name: None)
    for name in ("auto", "13a", "zh", "intl", "char"):
        require_tokenizer(name)
    expected = (
        r"evaluation\.bleu_tokenizer: ja-mecab is not installed; `pip install 'sacrebleu\[ja\]'` or set it to char"
    )
    with pytest.raises(ConfigError, match=expected):
        choose_tokenizer("ja-mecab", ["Gout hurts."])


def test_letters_without_spaces_are_one_word_to_most() -> None:
    assert [is_read("糖", name) for name in ("13a", "intl", "zh", "char")] == [False, False, True, True]
    assert [is_read("\u0e42", name) for name in ("13a", "intl", "zh", "char")] == [False, False, False, True]
    assert all(is_read(letter, name) for letter in "aéд당" for name in ("13a", "intl", "zh", "char"))
