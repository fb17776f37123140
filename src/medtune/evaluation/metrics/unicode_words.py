"""Words of any script, for ROUGE: rouge-score's own tokenizer keeps `a-z` and `0-9` only.

On ASCII text the tokens are rouge-score's. Letters keep their marks, which Python's `\\w` drops from the scripts of
India; characters of scripts without spaces between words are tokens one by one.
"""

import unicodedata
from collections.abc import Callable

from medtune.evaluation.letters import UNSPACED_SCRIPTS, script_of

TOKENIZER = "unicode-words"


def unicode_words(text: str, stem: Callable[[str], str] | None = None) -> list[str]:
    """Tokens of `text` in lower case and composed form; `stem` is applied to ASCII words of more than three letters."""
    tokens = unicodedata.normalize("NFC", text.lower()).translate(_BREAKS).split()
    if stem is None:
        return tokens
    return [stem(token) if len(token) > 3 and token.isascii() else token for token in tokens]


class _Breaks(dict[int, str]):
    """A table for `str.translate`: what becomes of a character, worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _spaced(chr(code))
        return found


_BREAKS = _Breaks()


def _spaced(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":  # joiners and soft hyphens are inside words
        return ""
    if category[0] not in "LMN":
        return " "
    return f" {character} " if script_of(character) in UNSPACED_SCRIPTS else character
