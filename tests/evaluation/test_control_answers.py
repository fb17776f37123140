from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import get_args

import pytest

from medtune.config.schema import Config
from medtune.evaluation.control_answers import (
    CEILING,
    DESCRIPTIONS,
    EXAMPLES,
    ON_TOP,
    WRITTEN,
    examples_for,
    most_examples,
    nearest_answers,
    nearest_examples,
    random_answers,
    worked_examples,
)
from medtune.evaluation.nearest_questions import NearestQuestions
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
    assert {CEILING, ON_TOP} | WRITTEN <= set(DESCRIPTIONS)
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
    examples = random_examples(TRAIN, rows)
    assert {row.qtype for chosen in examples.values() for row in chosen} == set(TYPES)


# The nearest answer -------------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_the_nearest_question_of_the_type() -> None:
    test = [pair(0, "causes", "disease7", part="test"), pair(1, "symptoms", "disease9", part="test")]
    answers = nearest_answers(NearestQuestions(TRAIN), test)
    assert [TYPE_OF[answer] for answer in answers] == ["causes", "symptoms"]
    assert "disease7." in answers[0]
    assert "disease9." in answers[1]
    assert nearest_answers(NearestQuestions(TRAIN), test[::-1]) == answers[::-1]


# Worked examples ----------------------------------------------------------------------------------------------------


def random_examples(
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
    examples = random_examples(TRAIN, TEST)
    assert list(examples) == [row.id for row in TEST]
    for row in TEST:
        chosen = examples[row.id]
        assert len({example.id for example in chosen}) == 3
        assert {example.qtype for example in chosen} == {row.qtype}
    assert len({example.id for chosen in examples.values() for example in chosen}) > 20


def test_no_example_is_of_the_rows_own_group() -> None:
    """Under a random split the question's own document may stand among the training rows."""
    test = [pair(number, "causes", "x", part="test", group="g0") for number in range(50)]
    examples = random_examples(TRAIN, test)
    assert all(len(chosen) == 3 for chosen in examples.values())
    assert "g0" not in {example.group for chosen in examples.values() for example in chosen}
    ungrouped = [pair(number, "causes", "x") for number in range(3)]
    (chosen,) = random_examples(ungrouped, [pair(0, "causes", "y", part="test")]).values()
    assert len(chosen) == 3  # rows without a group are not one group


def test_examples_are_only_what_will_do() -> None:
    short = {row.id for row in TRAIN if row.answer.startswith("Answer 1")}
    examples = random_examples(TRAIN, TEST, will_do=short)
    assert {example.id for chosen in examples.values() for example in chosen} <= short
    assert set(map(len, random_examples(TRAIN, TEST, will_do=set()).values())) == {0}


def test_a_type_with_fewer_rows_gives_fewer_examples() -> None:
    train = [pair(0, "causes", "a"), pair(1, "causes", "b"), pair(2, "symptoms", "c")]
    (chosen,) = random_examples(train, [pair(0, "causes", "x", part="test")]).values()
    assert {row.id for row in chosen} == {"train-0", "train-1"}


def test_examples_depend_on_seed_and_row_alone() -> None:
    chosen = random_examples(TRAIN, TEST, seed=3)
    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    assert random_examples(shuffled, TEST[::-1], seed=3) == chosen
    assert random_examples(TRAIN, TEST, seed=4) != chosen


# The nearest examples -----------------------------------------------------------------------------------------------


def retrieved(
    train: list[QAPair], test: list[QAPair], most: int = 3, *, sizes: dict[str, int] | None = None, room: float = 1e9
) -> dict[str, list[str]]:
    """Ids of the examples of each test row; every row takes a token unless `sizes` says so."""
    chosen = nearest_examples(
        NearestQuestions(train),
        test,
        turn_tokens=lambda row: 1 if sizes is None else sizes.get(row.id),
        room={row.id: room for row in test},
        most=most,
    )
    return {name: [row.id for row in rows] for name, rows in chosen.items()}


# From the nearest to the farthest of "gout of the toe", all of one type.
NEAR = [
    QAPair(f"near-{place}", "causes", text, f"Answer {place}", group=f"n{place}")
    for place, text in enumerate(["gout of the toe", "gout of the thumb", "gout", "gout in old age", "measles"])
]
ASKED = QAPair("test-0", "causes", "gout of the toe", "A reference.", group="t0")


@pytest.mark.parametrize("most", [1, 2, 3, 5, 8])
def test_the_nearest_comes_last_and_there_are_so_many(most: int) -> None:
    assert retrieved(NEAR, [ASKED], most)["test-0"] == [f"near-{place}" for place in range(5)][:most][::-1]


def test_a_nearest_row_of_the_own_group_makes_way_for_the_next() -> None:
    asked = replace(ASKED, group="n0")
    assert retrieved(NEAR, [asked], 1)["test-0"] == ["near-1"]
    assert "near-0" not in retrieved(NEAR, [asked], 8)["test-0"]
    # Rows without a group are not one group.
    ungrouped = [replace(row, group="") for row in NEAR]
    assert retrieved(ungrouped, [replace(ASKED, group="")], 1)["test-0"] == ["near-0"]


def test_the_nearest_row_gets_room_first_and_what_does_not_fit_makes_way() -> None:
    sizes = {"near-0": 11, "near-1": 10, "near-2": 9, "near-3": 9, "near-4": 1}
    assert retrieved(NEAR, [ASKED], 3, sizes=sizes, room=30.0)["test-0"] == ["near-2", "near-1", "near-0"]
    assert retrieved(NEAR, [ASKED], 3, sizes=sizes, room=20.0)["test-0"] == ["near-2", "near-0"]
    assert retrieved(NEAR, [ASKED], 3, sizes=sizes, room=21.0)["test-0"] == ["near-1", "near-0"]
    assert retrieved(NEAR, [ASKED], 2, sizes=sizes, room=10.0)["test-0"] == ["near-1"]
    assert retrieved(NEAR, [ASKED], 3, sizes=sizes, room=12.0)["test-0"] == ["near-4", "near-0"]
    # No row can be an example that `turn_tokens` has no number for, and none fits where there is no room.
    assert retrieved(NEAR, [ASKED], 2, sizes={"near-4": 1})["test-0"] == ["near-4"]
    assert retrieved(NEAR, [ASKED], 2, sizes=sizes, room=-5.0)["test-0"] == []


def test_the_order_of_the_rows_decides_nothing() -> None:
    chosen = retrieved(TRAIN, TEST)
    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    assert retrieved(shuffled, TEST[::-1]) == chosen
    assert retrieved(TRAIN, TEST[4:5])["test-4"] == chosen["test-4"]


def test_what_other_test_rows_ask_decides_nothing() -> None:
    """Nor is any of them retrieved, though their references would be the best answers there are."""
    chosen = retrieved(NEAR, [ASKED, *(replace(ASKED, id=f"test-{place}", group="") for place in range(1, 9))])
    assert {name for ids in chosen.values() for name in ids} <= {row.id for row in NEAR}
    assert chosen["test-0"] == retrieved(NEAR, [ASKED])["test-0"]


def test_each_control_gets_examples_of_its_own() -> None:
    values = {"model": {"base": "x"}, "data": {"source": "x"}, "evaluation": {"retrieved": 2}}
    config = Config.model_validate(values)
    room = {row.id: math.inf for row in TEST}
    found = {
        name: examples_for(name, NearestQuestions(TRAIN), TEST, turn_tokens=lambda row: 1, room=room, config=config)
        for name in sorted(WRITTEN)
    }
    assert [most_examples(name, config) for name in ("few_shot", "retrieval", "tuned_retrieval")] == [3, 2, 2]
    assert found["few_shot"] == random_examples(TRAIN, TEST)
    assert found["retrieval"] == found["tuned_retrieval"]
    assert {name: [row.id for row in rows] for name, rows in found["retrieval"].items()} == retrieved(TRAIN, TEST, 2)
