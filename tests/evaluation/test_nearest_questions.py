"""The ranking of training questions by TF-IDF: what is near, what counts, and that it depends on nothing else."""

from __future__ import annotations

import random

import pytest

from medtune.errors import DataError
from medtune.evaluation.nearest_questions import NearestQuestions, rows_by_type
from medtune.records import QAPair

TYPES = ("symptoms", "treatment", "causes")


def pair(number: int, qtype: str, topic: str, *, part: str = "train") -> QAPair:
    return QAPair(f"{part}-{number}", qtype, f"What are the {qtype} of {topic} ?", f"Answer {number} on {topic}.")


TRAIN = [pair(number, TYPES[number % 3], f"disease{number // 3}") for number in range(60)]
TYPE_OF = {row.answer: row.qtype for row in TRAIN}


def nearest_answers(train: list[QAPair], test: list[QAPair]) -> list[str]:
    index = NearestQuestions(train)
    return [next(index.ranked(row)).answer for row in test]


def test_the_nearest_question_is_nearest() -> None:
    train = [
        pair(0, "symptoms", "chronic kidney disease"),
        pair(1, "symptoms", "gout"),
        pair(2, "treatment", "rheumatoid arthritis"),
        pair(3, "symptoms", "acute kidney failure"),
    ]
    test = [
        pair(0, "symptoms", "kidney disease in children", part="test"),
        pair(1, "symptoms", "gout of the toe", part="test"),
        pair(2, "symptoms", "kidney failure", part="test"),
        # Only another type has its disease: the type comes first.
        pair(3, "symptoms", "rheumatoid kidney disease", part="test"),
    ]
    expected = [train[0].answer, train[1].answer, train[3].answer, train[0].answer]
    assert nearest_answers(train, test) == expected
    assert nearest_answers(train[::-1], test) == expected


def test_rare_words_weigh_more_than_common_ones() -> None:
    questions = ["about the fever", "gout", *(f"about the topic{number}" for number in range(8))]
    train = [QAPair(f"train-{number}", "", text, f"Answer {number}") for number, text in enumerate(questions)]
    assert nearest_answers(train, [QAPair("test-0", "", "about the gout", "")]) == ["Answer 1"]


def test_case_and_one_letter_words_count() -> None:
    train = [QAPair("train-0", "", "Vitamin C", "C"), QAPair("train-1", "", "Vitamin D", "D")]
    test = [QAPair(f"test-{letter}", "", f"VITAMIN {letter}?", "") for letter in "cd"]
    assert nearest_answers(train, test) == ["C", "D"]


def test_of_many_as_near_the_order_of_the_rows_decides_nothing() -> None:
    train = [QAPair(f"train-{number}", "", "the same question", f"Answer {number}") for number in range(20)]
    test = [QAPair("test-0", "", "the same question", "")]
    first = nearest_answers(train, test)
    assert all(nearest_answers(random.Random(seed).sample(train, 20), test) == first for seed in range(5))


def test_a_question_that_shares_no_word_gets_an_answer_all_the_same() -> None:
    (answer,) = nearest_answers(TRAIN, [QAPair("test-0", "causes", "zzz", "")])
    assert TYPE_OF[answer] == "causes"
    (answer,) = nearest_answers(TRAIN, [pair(0, "outlook", "disease7", part="test")])
    assert "disease7" in answer


def test_questions_without_words_are_a_data_error() -> None:
    train = [QAPair("train-0", "", "?!", "An answer.")]
    fix = r"leave nearest_question out of evaluation\.controls, and retrieval and tuned_retrieval"
    with pytest.raises(DataError, match=f"hold no words; {fix}"):
        nearest_answers(train, train)


# The ranking --------------------------------------------------------------------------------------------------------


def test_every_row_of_the_type_is_ranked_once() -> None:
    ranked = list(NearestQuestions(TRAIN).ranked(pair(0, "causes", "disease7", part="test")))
    assert sorted(row.id for row in ranked) == sorted(row.id for row in TRAIN if row.qtype == "causes")
    assert "disease7 " in ranked[0].question
    untyped = list(NearestQuestions(TRAIN).ranked(pair(0, "outlook", "disease7", part="test")))
    assert len(untyped) == len(TRAIN)
    assert all("disease7 " in row.question for row in untyped[:3])


def test_the_order_of_the_training_rows_decides_no_rank() -> None:
    asked = pair(0, "causes", "nothing known", part="test")  # as near to all of them
    first = [row.id for row in NearestQuestions(TRAIN).ranked(asked)]
    for seed in range(3):
        shuffled = random.Random(seed).sample(TRAIN, len(TRAIN))
        assert [row.id for row in NearestQuestions(shuffled).ranked(asked)] == first


def test_the_weights_are_those_of_the_training_questions_alone() -> None:
    """Words that only the question asked has weigh nothing: the index is not fitted again to what it is asked."""
    train = [QAPair("train-0", "", "gout toe", ""), QAPair("train-1", "", "gout thumb", "")]
    index = NearestQuestions(train)
    assert [row.id for row in index.ranked(QAPair("test-0", "", "toe", ""))] == ["train-0", "train-1"]
    assert sorted(index._vectorizer.vocabulary_) == ["gout", "gout thumb", "gout toe", "thumb", "toe"]
    list(index.ranked(QAPair("test-1", "", "knee knee knee", "")))
    assert sorted(index._vectorizer.vocabulary_) == ["gout", "gout thumb", "gout toe", "thumb", "toe"]


def test_an_index_is_built_only_when_it_is_asked() -> None:
    NearestQuestions([QAPair("train-0", "", "?!", "An answer.")])


def test_rows_stand_under_their_type_and_under_none() -> None:
    rows = [pair(0, "causes", "a"), pair(1, "", "b"), pair(2, "causes", "c")]
    by_type = rows_by_type(rows)
    assert {kind: {row.id for row in found} for kind, found in by_type.items()} == {
        "": {"train-0", "train-1", "train-2"}, "causes": {"train-0", "train-2"},
    }  # fmt: skip
    assert rows_by_type(rows[::-1]) == by_type
