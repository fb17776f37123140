"""Text from elsewhere, made harmless for a terminal: no escape sequence of a row or an answer takes effect there."""

import re

# Line breaks and tabs are layout. The rest moves cursors, rings, clears, renames windows, or cannot be written at all.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LAYOUT = re.compile(r"[\t\n]")


def harmless(text: str) -> str:
    r"""`text` with control characters spelled out, such as `\x1b`; line breaks and tabs stay."""
    return _CONTROL.sub(_spell, text)


def one_line(text: str) -> str:
    """As `harmless`, with line breaks and tabs spelled out too: for names in a message."""
    return _LAYOUT.sub(_spell, harmless(text))


def _spell(match: re.Match[str]) -> str:
    return repr(match.group())[1:-1]
