from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medtune.data.cleaning import (
    CHANGES,
    DROPS,
    Cleaned,
    clean_pairs,
    clean_text,
    normalize_answer,
    normalize_question,
    words,
)
from medtune.data.sources import SourceRows
from medtune.records import QAPair

# Letters and accents that NFC joins, every kind of blank and line end, damage, and question marks.
HOSTILE = (
    "ab?.-é e\u0301\u0327\t\n\r\x00\x07\x0b\x0c\x1c\x1f\x7f\x80\x85\x9f"
    "\xa0\u2000\u2028\u3000\u200b\ufeff\U0001f600\ud83d\ude00\ud800"
)
ANSWER = "Gout is a painful arthritis of single joints."
TEXTS = st.text(alphabet=HOSTILE) | st.text(alphabet=st.characters())
PAIRS = st.lists(
    st.builds(
        QAPair,
        id=st.uuids().map(str),
        qtype=TEXTS,
        question=st.sampled_from(["Q ?", "Q ? ?", " q", "", "\x00", "What is gout ?"]) | TEXTS,
        answer=st.sampled_from([ANSWER, f"{ANSWER} ", "What is gout? " * 2 + ANSWER, "q ?", "A.", "", " \n"]) | TEXTS,
        document_id=TEXTS,
        focus=TEXTS,
        source=TEXTS,
        split=st.sampled_from(["", "", "train", "test"]),
    ),
    max_size=8,
)


def pair(id: str, question: str = "Q ?", answer: str = ANSWER, **changes: str) -> QAPair:
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


def clean_question(text: str) -> str:
    kept = clean_pairs([QAPair("1", "", text, "An answer of no fewer than five words.")]).pairs
    return kept[0].question if kept else ""


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


def changed(counts: dict[str, int]) -> dict[str, int]:
    return {rule: rows for rule, rows in counts.items() if rows}


def test_every_rule_has_its_count() -> None:
    cleaned = clean_pairs(
        [
            pair("1", "Who?  ?", f" {ANSWER}\x00 "),
            pair("2"),
            pair("3", answer=" \n "),
            pair("4", question="\x00"),
            pair("5", "Who?"),
            pair("6", "Who?", "Cafe\u0301 talk of\r\nfive words"),
            pair("7"),
            pair("8", "What is gout ?", f"What is gout? {ANSWER}"),
            pair("9", "What is gout ?", "What is Gout?"),
            pair("10", answer="Only four words here."),
        ]
    )
    assert [(p.id, p.question, p.answer) for p in cleaned.pairs] == [
        ("1", "Who?", ANSWER), ("2", "Q ?", ANSWER), ("6", "Who?", "Café talk of\nfive words"),
        ("8", "What is gout ?", ANSWER),
    ]  # fmt: skip
    assert cleaned.counts == {
        "rows_read": 10, "line_ends_unified": 1, "damage_removed": 2, "characters_composed": 1, "blanks_collapsed": 2,
        "question_marks_merged": 1, "question_repeat_removed": 1, "dropped_empty": 2, "dropped_question_repeat": 1,
        "dropped_short": 1, "dropped_duplicate": 2, "rows_kept": 4,
    }  # fmt: skip
    assert [(rule, p.id) for rule, p in cleaned.dropped] == [
        ("dropped_empty", "3"), ("dropped_empty", "4"), ("dropped_duplicate", "5"), ("dropped_duplicate", "7"),
        ("dropped_question_repeat", "9"), ("dropped_short", "10"),
    ]  # fmt: skip


def test_raw_text_stays_beside_the_clean_one() -> None:
    cleaned = clean_pairs([pair("1", "Who?  ?", f" {ANSWER}\x00"), pair("2", "Who?  ?", "No.\ud800 ")])
    assert (cleaned.pairs[0].raw_question, cleaned.pairs[0].raw_answer) == ("Who?  ?", f" {ANSWER}\x00")
    ((_, dropped),) = cleaned.dropped
    # No file of UTF-8 can hold half a surrogate pair.
    assert (dropped.raw_question, dropped.raw_answer) == ("Who?  ?", "No.\ufffd ")
    assert dropped.answer == "No.\ud800 "
    # Cleaned again, a row still knows the text it was read as.
    assert clean_pairs(cleaned.pairs).pairs[0].raw_answer == f" {ANSWER}\x00"


@pytest.mark.parametrize(
    ("question", "answer", "left"),
    [
        ("What is gout ?", f"what is GOUT? {ANSWER}", ANSWER),
        ("What is gout ?", f"What is  gout ? ? {ANSWER}", ANSWER),
        ("What is gout ?", f'"What is gout?" {ANSWER}', ANSWER),
        ("What is gout ?", f"What is gout\n\n{ANSWER}", ANSWER),
        ("What is gout ?", f"What is gout (GA)? {ANSWER}", ANSWER),
        ("What is gout ?", f"What is gout? What is gout? {ANSWER}", ANSWER),
        ("What is Crohn's disease ?", f"What is Crohn's disease? {ANSWER}", ANSWER),
        # What goes on as a sentence is no repeat.
        ("Gout", "Gout is a painful arthritis of joints.", "Gout is a painful arthritis of joints."),
        ("What is gout ?", "What is gout in some is fate to others.", "What is gout in some is fate to others."),
        ("What is gout ?", f"What is gouty? {ANSWER}", f"What is gouty? {ANSWER}"),
        ("What is gout ?", f"{ANSWER} What is gout?", f"{ANSWER} What is gout?"),
        ("???", f"??? {ANSWER}", f"??? {ANSWER}"),
    ],
)
def test_a_repeated_question_is_cut_off_the_front(question: str, answer: str, left: str) -> None:
    cleaned = clean_pairs([pair("1", question, answer)])
    assert [p.answer for p in cleaned.pairs] == [left]
    assert cleaned.counts["question_repeat_removed"] == (left != clean_text(answer))


def test_answers_that_differ_by_a_repeated_question_alone_are_duplicates() -> None:
    rows = [pair("1", "What is gout ?", f"What is gout? {ANSWER}"), pair("2", "What is gout ?", ANSWER)]
    for first, second in (rows, rows[::-1]):
        cleaned = clean_pairs([first, second])
        assert [p.id for p in cleaned.pairs] == [first.id]
        assert [(rule, p.id) for rule, p in cleaned.dropped] == [("dropped_duplicate", second.id)]


@pytest.mark.parametrize(
    "answer",
    [
        "Is gout a disease of the joints",
        "is gout a disease of the joints? ?",
        "Is gout a disease of the joints.",
        "Is gout a disease of the joints? Is gout a disease of the joints?",
        "Is gout a disease of the joints? —",
    ],
)
def test_an_answer_that_is_nothing_but_its_question_is_dropped(answer: str) -> None:
    cleaned = clean_pairs([pair("1", "Is gout a disease of the joints ?", answer)])
    assert changed(cleaned.counts) == {"rows_read": 1, "dropped_question_repeat": 1}


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("one two three four", False),
        ("one two three four five", True),
        ("- one, two\n- three, four!", False),
        ("— … !", False),
        ("痛风是关节", True),  # Chinese has no blanks between words
        ("痛风", False),
        ("โรคเกาต์", True),
    ],
)
def test_answers_of_less_than_five_words_are_dropped(answer: str, kept: bool) -> None:
    cleaned = clean_pairs([pair("1", answer=answer)])
    assert cleaned.counts["rows_kept"] == kept
    assert cleaned.counts["dropped_short"] == (not kept)


def test_a_row_that_the_source_puts_in_two_parts_stays_in_both() -> None:
    rows = [pair("1", split="train"), pair("2", split="test"), pair("3", split="train")]
    assert [p.id for p in clean_pairs(rows).pairs] == ["1", "2"]


def test_labels_are_cleaned_too_and_the_rest_is_kept() -> None:
    raw = pair("1", qtype=" causes\n", focus="Gout\ud800 ", document_id="1/2\x00", source=" NIH", group="g")
    (row,) = clean_pairs([raw]).pairs
    assert replace(row, raw_question="", raw_answer="") == pair(
        "1", qtype="causes", focus="Gout", document_id="1/2", source="NIH", group="g"
    )


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
    assert counts["rows_read"] == len(pairs) == len(cleaned.pairs) + len(cleaned.dropped)
    assert counts["rows_kept"] == len(cleaned.pairs)
    assert {rule: counts[rule] for rule in DROPS} == {
        rule: sum(name == rule for name, _ in cleaned.dropped) for rule in DROPS
    }
    again = clean_pairs(cleaned.pairs)
    assert again.pairs == cleaned.pairs
    assert not again.dropped
    assert not any(again.counts[rule] for rule in CHANGES)
    assert len({(p.question, p.answer, p.split) for p in cleaned.pairs}) == len(cleaned.pairs)
    assert all(p.question and len(words(p.answer)) >= 5 for p in cleaned.pairs)
    assert {p.id for p in cleaned.pairs} | {p.id for _, p in cleaned.dropped} == {p.id for p in pairs}


def test_normalized_answers_are_their_words_or_themselves() -> None:
    assert normalize_answer("Gout is:\n- Painful!") == "gout is painful"
    assert normalize_answer("— 。") == "— 。"


def test_a_normalized_question_is_its_words() -> None:
    assert normalize_question("What is (are) Gout ?") == normalize_question("what  is are GOUT?") == "what is are gout"
    assert normalize_question("Straße") == "strasse"
    assert normalize_question("What is gout ?") != normalize_question("What is a gout ?")
    assert normalize_question("???") == ""


def test_medquad_is_cleaned(medquad: SourceRows, medquad_cleaned: Cleaned) -> None:
    assert medquad_cleaned.counts == {
        "rows_read": 15_651, "line_ends_unified": 0, "damage_removed": 0, "characters_composed": 0,
        "blanks_collapsed": 7_633, "question_marks_merged": 308, "question_repeat_removed": 493, "dropped_empty": 0,
        "dropped_question_repeat": 2, "dropped_short": 3, "dropped_duplicate": 48, "rows_kept": 15_598,
    }  # fmt: skip
    assert not any("??" in p.question or "? ?" in p.question for p in medquad_cleaned.pairs)
    raw = {p.id: p for p in medquad.pairs}
    for row in medquad_cleaned.pairs:
        assert (row.raw_question, row.raw_answer) == (raw[row.id].question, raw[row.id].answer)
    broken = {p.id for p in medquad_cleaned.pairs if "\n" in p.answer}
    assert len(broken) == 2_011
    assert broken == {p.id for p in medquad_cleaned.pairs if "\n" in p.raw_answer.strip()}
