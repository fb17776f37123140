"""Numbers by which rows are compared: as apart as their texts, and the same in every process."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medtune.data.large import hashes
from medtune.data.large.hashes import (
    KINDS,
    WordNumbers,
    answers_by_words,
    hash_text,
    hashes_of,
    id_bytes,
    id_text,
)
from medtune.records import QAPair


def test_a_hash_is_known_and_only_the_empty_text_is_0() -> None:
    # blake2b of 8 bytes, as `b2sum -l 64` prints it.
    assert hash_text("gout") == int("6d0cd8de75638fb1", 16)
    assert hash_text("") == 0
    assert hash_text("\ud800") != 0  # half of a surrogate pair, as JSON may hold


def test_words_have_signed_numbers_which_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_MOST_WORDS", 1)
    numbers = WordNumbers()
    first = numbers["gout"]
    assert first % 2**64 == hash_text("gout")
    assert -(2**63) <= first < 2**63
    assert WordNumbers()["fever"] == hash_text("fever") - 2**64 < 0
    assert numbers["asthma"] == WordNumbers()["asthma"] != first
    assert dict(numbers) == {"gout": first}


def test_rows_agree_in_just_what_they_share() -> None:
    pairs = [
        QAPair("1", "", "What is gout?", "Uric acid.", document_id="d", focus="Gout"),
        QAPair("2", "", "what is  GOUT", "uric acid", document_id="d", focus=" gout "),
        QAPair("3", "", "What is gout?", "Uric acid.", split="test"),
    ]
    found = hashes_of(pairs, answers_by_words(pairs))
    assert tuple(found) == KINDS
    assert all(values.dtype == np.uint64 for values in found.values())
    alike = {kind: [int(values[0] == other) for other in values[1:]] for kind, values in found.items()}
    assert alike == {
        "question": [1, 1], "question_exact": [0, 1], "answer": [1, 1], "answer_exact": [0, 1], "document": [1, 0],
        "focus": [1, 0], "repeat": [0, 0],
    }  # fmt: skip
    assert (found["document"][2], found["focus"][2]) == (0, 0)


def test_a_question_without_words_is_no_missing_question() -> None:
    pairs = [QAPair("1", "", "?", "a"), QAPair("2", "", "!", "b")]
    question = hashes_of(pairs, answers_by_words(pairs))["question"]
    assert question[0] == question[1] != 0


@given(st.text(st.characters(exclude_characters="\0", codec=None)))
@example("two\nlines")
def test_an_id_is_one_line_and_comes_back(id: str) -> None:
    stored = id_bytes(id)
    assert b"\n" not in stored
    assert id_text(stored) == id
