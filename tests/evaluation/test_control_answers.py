from __future__ import annotations

import math
import random
from typing import get_args

import pytest

from medtune.errors import DataError
from medtune.evaluation.control_answers import (
    CEILING,
    DESCRIPTIONS,
    EXAMPLES,
    nearest_answers,
    random_answers,
    worked_examples,
)
from medtune.records import ControlName, QAPair

TYPES = ("symptoms", "treatment", "causes")


def pair(number: int, qtype: str, topic: str, *, part: str = "train", group: str = "") -> QAPair:
    question = f"What are the {qtype} of {topic} ?"
    return QAPair(f"{part}-{number}", qtype, question, f"Answer {number} on {topic}.", group=group)


TRAIN = [pair(number, TYPES[number % 3], f"disease{number // 3}", group=f"g{number // 3}") for number in range(60)]
TEST = [pair(number, TYPES[number % 3], f"illness{number}", part="test", group=f"t{number}") for number in range(30)]
TYPE_OF = {row.answer: row.qtype for row in TRAIN}


def test_every_control_is_described() -> None:
    assert set(DESCRIPTIONS) == set(get_args(ControlName))
    assert CEILING in DESCRIPTIONS
    assert EXAMPLES == 3


# A random answer ----------------------------------------------------------------------------------------------------


def test_a_random_answer_is_of_the_same_question_type() -> None:
    answers = random_answers(TRAIN, TEST, seed=1)
    assert [TYPE_OF[answer] for answer in answers] == [row.qtype for row in TEST]
    assert len(set(answers)) > 15  # and not one answer for all


def test_random_answers_depend_on_seed_and_row_alone() -> None:
    answers = random_answers(TRAIN, TEST, seed=1)
    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    assert random_answers(shuffled, TEST, seed=1) == answers
    assert random_answers(TRAIN, TEST[::-1], seed=1) == answers[::-1]
    assert random_answers(TRAIN, TEST[5:6], seed=1) == answers[5:6]
    assert random_answers(TRAIN, TEST, seed=2) != answers


def test_every_answer_of_a_type_may_come() -> None:
    many = [pair(number, "causes", "x", part="test") for number in range(400)]
    of_type = {answer for answer, qtype in TYPE_OF.items() if qtype == "causes"}
    assert set(random_answers(TRAIN, many, seed=0)) == of_type


@pytest.mark.parametrize("qtype", ["outlook", ""])
def test_a_type_that_training_lacks_takes_any(qtype: str) -> None:
    rows = [pair(number, qtype, "x", part="test") for number in range(100)]
    assert {TYPE_OF[answer] for answer in random_answers(TRAIN, rows, seed=0)} == set(TYPES)
    examples = examples_for(TRAIN, rows)
    assert {row.qtype for chosen in examples.values() for row in chosen} == set(TYPES)


# The nearest question -----------------------------------------------------------------------------------------------


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
    with pytest.raises(DataError, match="hold no words; leave nearest_question out"):
        nearest_answers(train, train)


# Worked examples ----------------------------------------------------------------------------------------------------


def examples_for(
    train: list[QAPair], test: list[QAPair], will_do: set[str] | None = None, seed: int = 0
) -> dict[str, list[QAPair]]:
    """With room for any."""
    room = {row.id: math.inf for row in test}

    def turn_tokens(row: QAPair) -> int | None:
        return 1 if will_do is None or row.id in will_do else None

    return worked_examples(train, test, turn_tokens=turn_tokens, room=room, seed=seed)


def test_examples_fit_the_room_of_each_question() -> None:
    sizes = {row.id: size for size, row in enumerate(TRAIN)}
    room = {row.id: 3.0 * number for number, row in enumerate(TEST)}
    chosen = worked_examples(TRAIN, TEST, turn_tokens=lambda row: sizes[row.id], room=room, seed=0)
    for row in TEST:
        fitting = [other for other in TRAIN if other.qtype == row.qtype and 3 * sizes[other.id] <= room[row.id]]
        assert len(chosen[row.id]) == min(3, len(fitting))
        assert set(chosen[row.id]) <= set(fitting)


def test_three_examples_of_the_same_type_and_no_more() -> None:
    examples = examples_for(TRAIN, TEST)
    assert list(examples) == [row.id for row in TEST]
    for row in TEST:
        chosen = examples[row.id]
        assert len({example.id for example in chosen}) == 3
        assert {example.qtype for example in chosen} == {row.qtype}
    assert len({example.id for chosen in examples.values() for example in chosen}) > 20


def test_no_example_is_of_the_rows_own_group() -> None:
    """Under a random split the question's own document may stand among the training rows."""
    test = [pair(number, "causes", "x", part="test", group="g0") for number in range(50)]
    examples = examples_for(TRAIN, test)
    assert all(len(chosen) == 3 for chosen in examples.values())
    assert "g0" not in {example.group for chosen in examples.values() for example in chosen}
    ungrouped = [pair(number, "causes", "x") for number in range(3)]
    (chosen,) = examples_for(ungrouped, [pair(0, "causes", "y", part="test")]).values()
    assert len(chosen) == 3  # rows without a group are not one group


def test_examples_are_only_what_will_do() -> None:
    short = {row.id for row in TRAIN if row.answer.startswith("Answer 1")}
    examples = examples_for(TRAIN, TEST, will_do=short)
    assert {example.id for chosen in examples.values() for example in chosen} <= short
    assert set(map(len, examples_for(TRAIN, TEST, will_do=set()).values())) == {0}


def test_a_type_with_fewer_rows_gives_fewer_examples() -> None:
    train = [pair(0, "causes", "a"), pair(1, "causes", "b"), pair(2, "symptoms", "c")]
    (chosen,) = examples_for(train, [pair(0, "causes", "x", part="test")]).values()
    assert {row.id for row in chosen} == {"train-0", "train-1"}


def test_examples_depend_on_seed_and_row_alone() -> None:
    chosen = examples_for(TRAIN, TEST, seed=3)
    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    assert examples_for(shuffled, TEST[::-1], seed=3) == chosen
    assert examples_for(TRAIN, TEST, seed=4) != chosen
