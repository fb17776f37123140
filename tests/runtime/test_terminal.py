"""What rows and answers hold acts on no terminal, and stays readable."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.runtime.terminal import harmless, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("red \x9b31m", r"red \x9b31m"),  # the one-character form of the same
        ("over\rwritten\b", r"over\rwritten\x08"),
        ("a\x00b\x7f", r"a\x00b\x7f"),
        ("half \ud800", r"half \ud800"),
        ("line\u2028and\u2029paragraph", r"line\u2028and\u2029paragraph"),
        ("Gicht und Ödeme: 痛风 😀", "Gicht und Ödeme: 痛风 😀"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_control_characters_are_spelled_out_and_layout_stays(text, shown):
    assert harmless(text) == shown


def test_a_name_stays_on_its_line():
    assert one_line("a\nb\tc\x1b") == r"a\nb\tc\x1b"


@given(st.text(st.characters(), max_size=30))
def test_nothing_is_left_that_moves_a_cursor_or_cannot_be_written(text):
    shown = one_line(text)
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert one_line(shown) == shown
