"""The letters of texts: which script they are of, and how many of them a tokenizer reads."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache

# Above this share of letters that its tokenizer does not read, a score is about what is left of the text.
UNREAD_SHARE_WARNING = 0.05
# Written without spaces between words. Korean has spaces, and its letters are no part of this.
UNSPACED_SCRIPTS = frozenset(
    ("BALINESE", "BOPOMOFO", "CJK", "HIRAGANA", "JAVANESE", "KATAKANA", "KHMER", "LAO", "MYANMAR", "THAI", "TIBETAN",
     "YI")
)  # fmt: skip


def count_letters(texts: Iterable[str]) -> Counter[str]:
    """How often each letter occurs in `texts`; digits, marks and punctuation are no letters."""
    characters: Counter[str] = Counter()
    for text in texts:
        characters.update(text)
    return Counter({character: count for character, count in characters.items() if character.isalpha()})


@cache
def script_of(character: str) -> str:
    """The script of a letter or mark, as the first word of its Unicode name: LATIN, CYRILLIC, CJK, HANGUL …"""
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    return name.replace("-", " ").split(" ", 1)[0]


def unread_share(letters: Mapping[str, int], reads: Callable[[str], bool]) -> float:
    """The share, 0 to 1, of counted `letters` that a tokenizer does not read; 0 where there are none."""
    total = sum(letters.values())
    unread = sum(count for letter, count in letters.items() if not reads(letter))
    return unread / total if total else 0.0


def unread_details(letters: Mapping[str, int], reads: Callable[[str], bool], tokenizer: str) -> dict[str, object]:
    """What a score's details say of letters that its `tokenizer` does not read: nothing unless they are many."""
    share = unread_share(letters, reads)
    if share <= UNREAD_SHARE_WARNING:
        return {}
    return {"tokenizer": tokenizer, "share_of_letters_unread": share}
