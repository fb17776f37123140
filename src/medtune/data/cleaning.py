"""Cleaning: a pure step, each rule with its count. Line breaks stay."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from medtune.records import QAPair

VERSION = 1

_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_REPEATED_MARK = re.compile(r"\?(?:\s*\?)+")
# Tabs, line breaks and U+0085 are layout; other control characters, and half a surrogate pair, are damage.
_DAMAGE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Cleaned rows, and how many rows each rule changed or dropped."""

    pairs: list[QAPair]
    counts: dict[str, int]


def clean_pairs(pairs: Iterable[QAPair]) -> Cleaned:
    """Clean questions and answers; drop rows left without either, and exact duplicates of an earlier row."""
    counts: Counter[str] = Counter(
        {"rows_read": 0, "text_changed": 0, "dropped_empty": 0, "dropped_duplicate": 0, "rows_kept": 0}
    )
    kept: list[QAPair] = []
    seen: set[tuple[str, str]] = set()
    for pair in pairs:
        counts["rows_read"] += 1
        question = clean_question(pair.question)
        answer = clean_text(pair.answer)
        if not question or not answer:
            counts["dropped_empty"] += 1
            continue
        if (question, answer) in seen:
            counts["dropped_duplicate"] += 1
            continue
        seen.add((question, answer))
        counts["text_changed"] += (question, answer) != (pair.question, pair.answer)
        labels = {name: clean_text(getattr(pair, name)) for name in ("qtype", "document_id", "focus", "source")}
        kept.append(replace(pair, question=question, answer=answer, **labels))
    counts["rows_kept"] = len(kept)
    return Cleaned(kept, dict(counts))


def clean_text(text: str) -> str:
    """NFC text without damage, with single blanks and at most one empty line in a row."""
    # Damage goes first: what it kept apart, such as a letter and its accent, NFC then composes.
    text = unicodedata.normalize("NFC", _DAMAGE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    text = _BLANKS.sub(" ", text)
    text = "\n".join(line.strip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", text).strip()


def clean_question(text: str) -> str:
    """Cleaned text on one line, "? ?" made "?"."""
    return _REPEATED_MARK.sub("?", clean_text(text).replace("\n\n", " ").replace("\n", " "))


def normalize_question(question: str) -> str:
    """What two spellings of one question share: its words in lower case."""
    return " ".join(re.findall(r"\w+", question.casefold()))
