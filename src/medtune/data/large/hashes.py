"""Hashes of 64 bits by which rows are compared, the same in every process and on every machine."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from medtune.data.cleaning import normalize_answer, normalize_question
from medtune.data.splits import focus_key
from medtune.records import QAPair

# What each array holds: 0 where a row has no such value.
KINDS = ("question", "question_exact", "answer", "answer_exact", "document", "focus", "repeat")


def hash_text(text: str) -> int:
    """A number of 64 bits for a text; 0 for an empty one, and for no other."""
    if not text:
        return 0
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") or 1


class WordNumbers(dict[str, int]):
    """The hash of each word, as a signed number, and as far as there is room kept."""

    def __missing__(self, word: str) -> int:
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big", signed=True)
        if len(self) < _MOST_WORDS:
            self[word] = number
        return number


# Words whose hashes a process keeps.
_MOST_WORDS = 500_000


def hashes_of(pairs: Sequence[QAPair], answers: Iterable[str]) -> dict[str, Any]:
    """The array of each kind for cleaned rows; `answers` are their answers, normalised."""
    keys = {
        "question": (normalize_question(pair.question) or "\0" for pair in pairs),
        "question_exact": (pair.question for pair in pairs),
        "answer": answers,
        "answer_exact": (pair.answer for pair in pairs),
        "document": (pair.document_id for pair in pairs),
        "focus": (focus_key(pair.focus) for pair in pairs),
        "repeat": ("\0".join((pair.question, pair.answer, pair.split)) for pair in pairs),
    }
    return {kind: np.fromiter(map(hash_text, texts), np.uint64, len(pairs)) for kind, texts in keys.items()}


def answers_by_words(pairs: Iterable[QAPair]) -> list[str]:
    """The words of each answer, as `find_similar_answers` compares them."""
    return [normalize_answer(pair.answer) for pair in pairs]


def id_bytes(id: str) -> bytes:
    """An id as it is stored, on a line and in an array of equal lengths."""
    return id.encode("utf-8", "surrogatepass").replace(b"\n", b"\0")


def id_text(stored: bytes) -> str:
    """The id that `id_bytes` stored."""
    return bytes(stored).replace(b"\0", b"\n").decode("utf-8", "surrogatepass")
