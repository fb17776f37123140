"""What rows and answers hold acts on no terminal, and stays readable."""

import unicodedata
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from medtune.runtime.terminal import harmless, one_line, print_points, print_text, wrapped


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


SENTENCE = (
    "On 56 questions in 8 groups the tuned model, against the baseline, is better by ROUGE-L F1 and perplexity. " * 3
)
PATH = "/home/somebody/a-folder-with-a-name/" * 3 + "report.html"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_lines_break_between_words_alone(width):
    text = f"{SENTENCE}see {PATH}"
    lines = wrapped(text, width).split("\n")
    assert " ".join(lines).split() == text.split()
    assert PATH in lines
    assert all(len(line) <= width for line in lines if line != PATH)


def test_a_command_is_not_broken():
    text = "delete it and run `medtune compare runs/mine` or `pip install medtune` first"
    assert wrapped(text, 20).split("\n") == [
        "delete it and run", "`medtune compare runs/mine`", "or `pip install", "medtune` first",
    ]  # fmt: skip


def test_lines_of_a_text_stay_lines():
    assert wrapped("one\n\n  two", 80) == "one\n\n  two"


def printed(text, *, terminal):
    out = StringIO()
    print_text(text, Console(file=out, force_terminal=terminal, width=40, color_system=None))
    return out.getvalue()


def test_only_a_terminal_gets_wrapped_lines():
    assert printed(SENTENCE, terminal=False) == f"{SENTENCE}\n"
    assert printed(f"[bold] {SENTENCE}", terminal=True) == wrapped(f"[bold] {SENTENCE}", 40) + "\n"


def test_points_are_wrapped_as_tables_are():
    out = StringIO()
    print_points([SENTENCE, PATH], Console(file=out, width=40))
    assert out.getvalue() == wrapped(f"- {SENTENCE}", 40) + f"\n-\n{PATH}\n"
