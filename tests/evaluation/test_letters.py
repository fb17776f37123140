from __future__ import annotations

import pytest

from medtune.evaluation.letters import count_letters, script_of, unread_details, unread_share


def test_letters_are_counted_and_nothing_else() -> None:
    assert count_letters(["Gout 38 °C!", "óg"]) == {"G": 1, "o": 1, "u": 1, "t": 1, "C": 1, "ó": 1, "g": 1}
    assert count_letters(["", " 1.5\n"]) == {}


@pytest.mark.parametrize(
    ("character", "script"),
    [
        ("a", "LATIN"),
        ("é", "LATIN"),
        ("\uff21", "LATIN"),
        ("д", "CYRILLIC"),
        ("糖", "CJK"),
        ("\u3042", "HIRAGANA"),
        ("\u30fc", "KATAKANA"),
        ("\uff76", "KATAKANA"),
        ("당", "HANGUL"),
        ("\u0e42", "THAI"),
        ("\u092e", "DEVANAGARI"),
        ("\x00", ""),
    ],
)
def test_scripts(character: str, script: str) -> None:
    assert script_of(character) == script


def test_the_share_that_is_not_read() -> None:
    letters = count_letters(["aaab"])
    assert unread_share(letters, lambda letter: letter == "a") == 0.25
    assert unread_share({}, lambda letter: False) == 0


def test_a_twentieth_is_not_worth_a_word() -> None:
    def read(letter: str) -> bool:
        return letter == "a"

    assert unread_details({"a": 19, "b": 1}, read, "t") == {}
    assert unread_details({"a": 18, "b": 2}, read, "t") == {"tokenizer": "t", "share_of_letters_unread": 0.1}
