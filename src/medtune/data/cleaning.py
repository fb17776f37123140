"""Cleaning: a pure step that counts what each rule does. Line breaks stay, and the raw text is kept too."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from medtune.data.turns import with_turns
from medtune.records import QAPair

# Raise it when a rule changes: every report has it, so that the rows of two runs can be told apart.
VERSION = 3
MIN_ANSWER_WORDS = 5

CHANGES = (
    "line_ends_unified",
    "damage_removed",
    "characters_composed",
    "blanks_collapsed",
    "question_marks_merged",
    "question_repeat_removed",
)
DROPS = ("dropped_empty", "dropped_question_repeat", "dropped_short", "dropped_duplicate")

_LABELS = ("qtype", "document_id", "focus", "source")
_BLANK_LINES = re.compile(r"\n{3,}")
_REPEATED_MARK = re.compile(r"\?(?:\s*\?)+")
# Tabs, line breaks and U+0085 are layout; other control characters, and half a surrogate pair, are damage.
_DAMAGE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
# In scripts without blanks between words (Thai to Khmer, kana, Han) each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"[a-z0-9_]+")
# The end of a repeated question: its mark, with at most an abbreviation in brackets before it; or its line's end.
_REPEAT_END = re.compile(r"(?:[^\S\n]*\([^()\n]{1,40}\))?[^\S\n]*\?(?:\s*\?)*[\"'\u201d\u2019]*|[^\S\n]*(?=\n|\Z)")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Cleaned rows; how many rows each rule changed or dropped; and each dropped row, as it was read, by rule."""

    pairs: list[QAPair]
    counts: dict[str, int]
    dropped: list[tuple[str, QAPair]]


def clean_pairs(pairs: Iterable[QAPair], min_answer_words: int = MIN_ANSWER_WORDS) -> Cleaned:
    """Clean questions and answers and drop rows that are of no use.

    Those are rows without a question or an answer, or with an empty turn before these, rows whose answer is nothing but
    the question, rows with fewer than `min_answer_words` words in each of their answers, and exact duplicates of an
    earlier row. Duplicates that the source itself puts in different parts stay: the audit reports what its split leaks.
    """
    counts: Counter[str] = Counter(dict.fromkeys(("rows_read", *CHANGES, *DROPS, "rows_kept"), 0))
    kept: list[QAPair] = []
    dropped: list[tuple[str, QAPair]] = []
    seen: set[tuple[object, ...]] = set()
    for pair in map(_with_raw_text, pairs):
        counts["rows_read"] += 1
        question, changes = _clean_question(pair.question)
        answer, more = _clean_text(pair.answer)
        cleaned, others = _clean_turns(pair)
        rest = _without_question(question, answer)
        below = clean_text(pair.context)
        question = f"{question}\n\n{below}" if below else question
        repeats = {"question_repeat_removed"} if rest and rest != answer else set()
        counts.update(changes | more | others | repeats)
        key = (cleaned.turns, question, rest, pair.split)
        rule = "dropped_duplicate" if key in seen else _reason_to_drop(cleaned, question, answer, rest)
        if rule := rule or ("dropped_short" if _is_short(cleaned, rest, min_answer_words) else None):
            counts[rule] += 1
            dropped.append((rule, pair))
            continue
        seen.add(key)
        labels: dict[str, Any] = {name: clean_text(getattr(pair, name)) for name in _LABELS}
        references = _references(pair, rest)
        kept.append(replace(cleaned, question=question, context="", answer=rest, references=references, **labels))
    counts["rows_kept"] = len(kept)
    return Cleaned(kept, dict(counts), dropped)


def _clean_turns(pair: QAPair) -> tuple[QAPair, set[str]]:
    """The row with its user's turns cleaned as questions and all others as answers, and the rules that changed them."""
    cleaned = [(_clean_question if turn.role == "user" else _clean_text)(turn.content) for turn in pair.turns]
    changes = set[str]().union(*(rules for _, rules in cleaned))
    return (with_turns(pair, [text for text, _ in cleaned]) if cleaned else pair), changes


def _with_raw_text(pair: QAPair) -> QAPair:
    question, answer = pair.raw_question or pair.asked, pair.raw_answer or pair.answer
    # Half a surrogate pair, which no UTF-8 file can hold, is the one thing that raw text loses.
    return replace(pair, raw_question=_HALF_PAIR.sub("\ufffd", question), raw_answer=_HALF_PAIR.sub("\ufffd", answer))


def _references(pair: QAPair, answer: str) -> tuple[str, ...]:
    """All references, the cleaned answer first; none where the others are empty or the same."""
    others = dict.fromkeys(text for text in map(clean_text, pair.references[1:]) if text and text != answer)
    return (answer, *others) if others else ()


def _reason_to_drop(pair: QAPair, question: str, answer: str, rest: str) -> str | None:
    if not question or not answer or any(not turn.content for turn in pair.turns):
        return "dropped_empty"
    return None if rest else "dropped_question_repeat"


def _is_short(pair: QAPair, rest: str, least: int) -> bool:
    """Whether every answer is short: many a conversation ends with a few words of thanks."""
    answers = [rest, *(turn.content for turn in pair.turns if turn.role == "assistant")]
    return all(len(list(islice(_WORD.finditer(answer), least))) < least for answer in answers)


def clean_text(text: str) -> str:
    """NFC text without damage, with single blanks and at most one empty line in a row."""
    return _clean_text(text)[0]


def words(text: str) -> list[str]:
    """The words of `text` in lower case, without punctuation. Where a script has no blanks, its characters."""
    if text.isascii():  # twice as fast, and the same words
        return _ASCII_WORD.findall(text.lower())
    return [match.casefold() for match in _WORD.findall(text)]


def normalize_question(question: str) -> str:
    """The words of a question in lower case: equal for two spellings of one question."""
    return " ".join(words(question))


def normalize_answer(answer: str) -> str:
    """The words of an answer in lower case, or the text itself where it has no words: equal for two spellings."""
    return " ".join(words(answer)) or answer


def _clean_text(text: str) -> tuple[str, set[str]]:
    changes = set()

    def changed(rule: str, before: str, after: str) -> str:
        if after != before:
            changes.add(rule)
        return after

    text = changed("line_ends_unified", text, text.replace("\r\n", "\n").replace("\r", "\n"))
    # Damage is removed first: NFC then composes what it separated, such as a letter and its accent.
    if not text.replace("\n", "").isprintable():  # far faster to ask, and damage is not printable
        text = changed("damage_removed", text, _DAMAGE.sub("", text))
    text = changed("characters_composed", text, unicodedata.normalize("NFC", text))
    lines = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    return changed("blanks_collapsed", text, _BLANK_LINES.sub("\n\n", lines).strip()), changes


def _clean_question(text: str) -> tuple[str, set[str]]:
    """Cleaned text on one line, "? ?" made "?", and the rules that changed it."""
    text, changes = _clean_text(text)
    line = text.replace("\n\n", " ").replace("\n", " ")
    question = _REPEATED_MARK.sub("?", line)
    return question, changes | ({"question_marks_merged"} if question != line else set())


def _without_question(question: str, answer: str) -> str:
    """The answer without the question that it begins with, if it does; empty if there is nothing else in it.

    Compared word by word, cut in the text itself. A question's words that continue as a sentence ("Gout is …" after the
    question "Gout") are no repeat: a question mark or the end of the line must close them.
    """
    asked, rest = words(question), answer
    while asked:
        matches: list[re.Match[str]] = []
        for match in _WORD.finditer(rest):
            if len(matches) == len(asked) or match.group().casefold() != asked[len(matches)]:
                break
            matches.append(match)
        if len(matches) < len(asked):
            break
        if _WORD.search(rest, matches[-1].end()) is None:
            return ""
        closing = _REPEAT_END.match(rest, matches[-1].end())
        if closing is None:
            break
        rest = rest[closing.end() :].strip()
    return rest if rest == answer or words(rest) else ""
