from __future__ import annotations

from dataclasses import replace

import pytest

from medtune.data.audit_record import KindLeakage, SharedRows, SharedWith
from medtune.data.leakage import KINDS, Leakage, deal_again, leakage_table, leaking_test_rows
from medtune.data.near_duplicates import find_similar_answers
from medtune.data.preparation import Prepared
from medtune.records import QAPair, Split

LONG = "a b c d e f g h i j k l m n o p q r s t u v w x y z"


def row(id: str, question: str = "", answer: str = "", document_id: str = "", focus: str = "") -> QAPair:
    return QAPair(id, "", question or f"Question {id} ?", answer or f"Answer {id}.", "", document_id, focus)


TRAIN = (
    row("t1", "What is gout ?", LONG, "d1", "Gout"),
    row("t2", "Why ?", "Rest and wait.", "d2", "Asthma"),
)
VALIDATION = (row("v1", "Who ?", "Nobody knows.", "d3", "Acne"),)
TEST = (
    row("same question", "What is gout ?"),
    row("same words", "what is GOUT?"),
    row("same answer", answer="Rest and wait."),
    replace(row("near", answer=f"{LONG[:-1]}one"), template=True),
    row("near too", answer="rest, and wait"),
    row("document", document_id="d2"),
    row("focus", focus=" gout "),
    row("validation", "Who ?", "Nobody knows.", "d3", "Acne"),
    row("alone"),
    row("alone too"),
)
ROWS = [*TRAIN, *VALIDATION, *TEST]
SPLIT = Split(TRAIN, VALIDATION, TEST)


def leakage(rows: list[QAPair]) -> Leakage:
    return Leakage(rows, find_similar_answers([pair.answer for pair in rows]))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("question_exact", ["same question"]),
        ("question_normalized", ["same question", "same words"]),
        ("answer_exact", ["same answer"]),
        ("answer_near_duplicate", ["same answer", "near", "near too"]),
        ("document", ["document"]),
        ("focus", ["focus"]),
    ],
)
def test_what_is_found_in_train(kind: str, expected: list[str]) -> None:
    assert [pair.id for pair in leakage(ROWS).find(kind, TEST, TRAIN)] == expected
    wider = leakage(ROWS).find(kind, TEST, (*TRAIN, *VALIDATION))
    assert [pair.id for pair in wider] == [*expected, "validation"]


def test_a_row_without_a_document_or_a_focus_shares_none() -> None:
    found = leakage(ROWS)
    assert found.find("document", [TEST[-1]], [TEST[0]]) == []
    bare = leakage([row("1"), row("2")])
    assert [kind for kind in KINDS if bare.given(kind)] == [
        "question_exact", "question_normalized", "answer_exact", "answer_near_duplicate",
    ]  # fmt: skip


def test_the_table_counts_both_splits() -> None:
    table = leakage_table(leakage(ROWS), SPLIT, Split(TEST, (), TRAIN))
    assert table["question_normalized"] == KindLeakage(
        split=SharedWith(in_train=SharedRows(2, 0.2), in_train_or_validation=SharedRows(3, 0.3)),
        random=SharedWith(in_train=SharedRows(1, 0.5), in_train_or_validation=SharedRows(1, 0.5)),
    )
    near = table["answer_near_duplicate"]
    assert near is not None
    assert near.split.in_train == SharedRows(3, 0.3, template_rows=1)
    bare = Split((row("1"),), (), (row("2"),))
    assert leakage_table(leakage([row("1"), row("2")]), bare, bare)["focus"] is None


def test_leaking_rows_are_named_by_kind() -> None:
    assert leaking_test_rows(leakage(ROWS), SPLIT) == {
        "question_exact": ["same question"],
        "question_normalized": ["same question", "same words"],
        "answer_exact": ["same answer"],
        "answer_near_duplicate_template": ["near"],
        "answer_near_duplicate_other": ["same answer", "near too"],
        "document": ["document"],
        "focus": ["focus"],
    }


def test_the_random_split_beside_is_of_the_same_rows_and_sizes() -> None:
    dealt = deal_again(SPLIT, 0)
    assert [len(part) for part in (dealt.train, dealt.validation, dealt.test)] == [2, 1, 10]
    assert {pair.id for part in (dealt.train, dealt.validation, dealt.test) for pair in part} == {
        pair.id for pair in ROWS
    }
    assert deal_again(Split(TEST, VALIDATION, TRAIN), 1) != deal_again(Split(TEST, VALIDATION, TRAIN), 0)
    mixed = Split(TRAIN[::-1], VALIDATION, TEST[::-1])
    assert deal_again(mixed, 0) == dealt


# MedQuAD ------------------------------------------------------------------------------------------------------------


def test_a_grouped_split_of_medquad_leaks_templates_alone(medquad_prepared: Prepared) -> None:
    found = Leakage(medquad_prepared.rows, medquad_prepared.similar)
    leaking = leaking_test_rows(found, medquad_prepared.split)
    assert {kind: len(ids) for kind, ids in leaking.items()} == {
        "question_exact": 0, "question_normalized": 0, "answer_exact": 49, "answer_near_duplicate_template": 99,
        "answer_near_duplicate_other": 0, "document": 0, "focus": 0,
    }  # fmt: skip
    part = medquad_prepared.split
    assert all(pair.template for pair in found.find("answer_exact", part.test, (*part.train, *part.validation)))


def test_a_random_split_of_medquad_leaks_what_is_known_of_it(medquad_prepared: Prepared) -> None:
    """A random 90/10 split of the raw rows has 21 %, 4 %, 84.7 % and 86.5 %."""
    split = medquad_prepared.split
    found = leakage_table(Leakage(medquad_prepared.rows, medquad_prepared.similar), split, deal_again(split, 0))
    shares = {kind: leak.random.in_train_or_validation.share for kind, leak in found.items() if leak and leak.random}
    expected = {"question_normalized": 0.21, "answer_exact": 0.04, "document": 0.847, "focus": 0.865}
    assert {kind: shares[kind] for kind in expected} == pytest.approx(expected, abs=0.02)


def test_the_hub_columns_leak_no_topic_that_can_be_read(hub_prepared: Prepared) -> None:
    leaking = leaking_test_rows(Leakage(hub_prepared.rows, hub_prepared.similar), hub_prepared.split)
    assert not leaking["question_normalized"]
    assert not leaking["answer_near_duplicate_other"]
    assert not leaking["focus"]
