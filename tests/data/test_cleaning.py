from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medtune.data.cleaning import Cleaned, clean_pairs, clean_question, clean_text, normalize_question
from medtune.data.sources import SourceRows
from medtune.records import QAPair

# Letters and accents that NFC joins, every kind of blank and line end, damage, and question marks.
HOSTILE = (
    "ab?.-é e\u0301\u0327\t\n\r\x00\x07\x0b\x0c\x1c\x1f\x7f\x80\x85\x9f"
    "\xa0\u2000\u2028\u3000\u200b\ufeff\U0001f600\ud83d\ude00\ud800"
)
TEXTS = st.text(alphabet=HOSTILE) | st.text(alphabet=st.characters())
PAIRS = st.lists(
    st.builds(
        QAPair,
        id=st.uuids().map(str),
        qtype=TEXTS,
        question=st.sampled_from(["Q ?", "Q ? ?", " q", "", "\x00"]) | TEXTS,
        answer=st.sampled_from(["A.", "A. ", "B.", "", " \n"]) | TEXTS,
        document_id=TEXTS,
        focus=TEXTS,
        source=TEXTS,
    ),
    max_size=8,
)


def pair(id: str, question: str = "Q ?", answer: str = "A.", **changes: str) -> QAPair:
    return QAPair(**({"id": id, "qtype": "causes", "question": question, "answer": answer} | changes))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("plain", "plain"),
        ("  two   blanks\tand a tab ", "two blanks and a tab"),
        ("one\ntwo\r\nthree\rfour", "one\ntwo\nthree\nfour"),
        ("one  \n   - two\n", "one\n- two"),
        ("one\n\n\n\n\ntwo", "one\n\ntwo"),
        ("one\n \n\t\n \ntwo", "one\n\ntwo"),
        ("no-break\xa0space\u3000wide", "no-break space wide"),
        ("bell\x07 and\x00 NUL\x9b", "bell and NUL"),
        ("half \ud800 a pair", "half a pair"),
        ("cafe\u0301", "café"),
        ("cafe\x00\u0301", "café"),
        ("Ménière — 😀 ≥ 5 µg", "Ménière — 😀 ≥ 5 µg"),
        (" \n\x00 ", ""),
        ("", ""),
    ],
)
def test_clean_text(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("What is gout ?", "What is gout ?"),
        ("Who is at risk for LCM? ?", "Who is at risk for LCM?"),
        ("What?? ? ?", "What?"),
        ("What\nis\n\ngout ?\n?", "What is gout ?"),
        ("Is it? Or not?", "Is it? Or not?"),
    ],
)
def test_clean_question(raw: str, clean: str) -> None:
    assert clean_question(raw) == clean


@given(TEXTS)
@example("e\x00\u0301")
@example("a\n\n\nb")
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean_text(clean_text(text)) == clean_text(text)
    assert clean_question(clean_question(text)) == clean_question(text)


@given(TEXTS)
def test_nothing_is_left_that_a_file_or_a_tokenizer_chokes_on(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert {unicodedata.category(c) for c in cleaned if c != "\n"}.isdisjoint({"Cc", "Cs"})
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not {"  ", "\n\n\n", " \n", "\n "} & {cleaned[i : i + n] for n in (2, 3) for i in range(len(cleaned))}
    assert "\n" not in clean_question(text)


@given(st.lists(st.text(alphabet="abc.,é", min_size=1), min_size=1), st.sampled_from(["\n", "\r\n", "\r"]))
def test_line_breaks_stay(lines: list[str], end: str) -> None:
    assert clean_text(end.join(lines)).split("\n") == lines


@given(TEXTS)
def test_words_stay(text: str) -> None:
    words = "".join(c for c in text if c.isalnum())
    assert clean_text(words) == unicodedata.normalize("NFC", words)


def test_pairs_are_cleaned_and_counted() -> None:
    cleaned = clean_pairs(
        [
            pair("1", "Who?  ?", " A.\x00 "),
            pair("2"),
            pair("3", answer=" \n "),
            pair("4", question="\x00"),
            pair("5", "Who?", "A."),
            pair("6", "Who?", "B."),
            pair("7"),
        ]
    )
    assert [(p.id, p.question, p.answer) for p in cleaned.pairs] == [
        ("1", "Who?", "A."), ("2", "Q ?", "A."), ("6", "Who?", "B."),
    ]  # fmt: skip
    assert cleaned.counts == {
        "rows_read": 7, "text_changed": 1, "dropped_empty": 2, "dropped_duplicate": 2, "rows_kept": 3,
    }  # fmt: skip


def test_labels_are_cleaned_too_and_the_rest_is_kept() -> None:
    raw = pair("1", qtype=" causes\n", focus="Gout\ud800 ", document_id="1/2\x00", source=" NIH", group="g")
    assert clean_pairs([raw]).pairs == [
        pair("1", qtype="causes", focus="Gout", document_id="1/2", source="NIH", group="g")
    ]


def test_no_rows_are_no_rows() -> None:
    assert clean_pairs([]).pairs == []
    assert clean_pairs(iter([pair("1")])).counts["rows_kept"] == 1


@given(PAIRS)
def test_cleaning_pairs_is_pure_idempotent_and_adds_up(pairs: list[QAPair]) -> None:
    before = [replace(p) for p in pairs]
    cleaned = clean_pairs(pairs)
    assert pairs == before
    assert clean_pairs(pairs) == cleaned
    counts = cleaned.counts
    assert counts["rows_read"] == len(pairs)
    assert counts["rows_kept"] == len(cleaned.pairs)
    assert counts["rows_read"] == counts["rows_kept"] + counts["dropped_empty"] + counts["dropped_duplicate"]
    again = clean_pairs(cleaned.pairs)
    assert again.pairs == cleaned.pairs
    assert again.counts["text_changed"] == 0
    assert len({(p.question, p.answer) for p in cleaned.pairs}) == len(cleaned.pairs)
    assert all(p.question and p.answer for p in cleaned.pairs)


def test_a_normalized_question_is_its_words() -> None:
    assert normalize_question("What is (are) Gout ?") == normalize_question("what  is are GOUT?") == "what is are gout"
    assert normalize_question("Straße") == "strasse"
    assert normalize_question("What is gout ?") != normalize_question("What is a gout ?")
    assert normalize_question("???") == ""


def test_medquad_is_cleaned(medquad: SourceRows, medquad_cleaned: Cleaned) -> None:
    assert medquad_cleaned.counts == {
        "rows_read": 15_651, "text_changed": 7_642, "dropped_empty": 0, "dropped_duplicate": 48, "rows_kept": 15_603,
    }  # fmt: skip
    assert not any("??" in p.question or "? ?" in p.question for p in medquad_cleaned.pairs)
    raw = {p.id: p.answer.strip() for p in medquad.pairs}
    broken = {p.id for p in medquad_cleaned.pairs if "\n" in p.answer}
    assert len(broken) == 2_011
    assert broken == {p.id for p in medquad_cleaned.pairs if "\n" in raw[p.id]}
