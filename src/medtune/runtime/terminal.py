"""Text from elsewhere, made harmless for a terminal: no escape sequence of a row or an answer takes effect there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

# Line breaks and tabs are layout. The rest moves cursors, rings, clears, renames windows, or cannot be written at all.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LAYOUT = re.compile(r"[\t\n]")
_COMMAND = re.compile(r"`medtune [^`\n]+`")
_HELD = "\0"  # which no harmless text holds


def harmless(text: str) -> str:
    r"""`text` with control characters spelled out, such as `\x1b`; line breaks and tabs stay."""
    return _CONTROL.sub(_spell, text)


def one_line(text: str) -> str:
    """As `harmless`, with line breaks and tabs spelled out too: for names in a message."""
    return _LAYOUT.sub(_spell, harmless(text))


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` columns that break between words alone: a longer word sticks out.

    So does a command in backticks. A terminal, and rich, break such words, and a path that is broken cannot be copied.
    """
    wrapper = textwrap.TextWrapper(max(1, width), break_long_words=False, break_on_hyphens=False)
    kept = _COMMAND.sub(lambda command: command.group().replace(" ", _HELD), text)
    return "\n".join(wrapper.fill(line) for line in kept.split("\n")).replace(_HELD, " ")


def print_text(text: str, console: Console, style: str | None = None) -> None:
    """Print plain text, wrapped in a terminal; a file keeps its lines, for searches."""
    shown = wrapped(text, console.width) if console.is_terminal else text
    console.print(shown, style=style, markup=False, highlight=False, soft_wrap=True)


def print_points(sentences: Iterable[str], console: Console) -> None:
    """Print each sentence as a point of a list, wrapped to the width of the tables beside it."""
    for sentence in sentences:
        console.print(wrapped(f"- {sentence}", console.width), markup=False, highlight=False, soft_wrap=True)


def _spell(match: re.Match[str]) -> str:
    return repr(match.group())[1:-1]
