from __future__ import annotations

import json
import subprocess
import sys

import pytest

from medtune.errors import DataError
from medtune.evaluation.human.blinding import Key, KeyEntry, blind, key_json, parse_key
from medtune.records import Prediction


def pairs(n: int, baseline: str = "before {}", tuned: str = "after {}") -> list[tuple[Prediction, Prediction]]:
    answers = [
        [
            Prediction(f"row-{i}", f"Why {i} ?", f"So {i}.", text.format(i), qtype="causes", group=f"topic-{i}")
            for i in range(n)
        ]
        for text in (baseline, tuned)
    ]
    return list(zip(*answers, strict=True))


def test_the_key_tells_which_answer_is_whose() -> None:
    items, key = blind(pairs(40), seed=7)
    assert [item.name for item in items] == [str(i) for i in range(1, 41)]
    assert {entry.row for entry in key.items.values()} == {f"row-{i}" for i in range(40)}
    for item in items:
        entry = key.items[item.name]
        number = entry.row.removeprefix("row-")
        answers = {"a": item.answer_a, "b": item.answer_b}
        assert answers.pop(entry.tuned) == f"after {number}"
        assert answers.popitem()[1] == f"before {number}"
        assert (item.question, item.reference) == (f"Why {number} ?", f"So {number}.")
        assert (entry.qtype, entry.group) == ("causes", f"topic-{number}")


def test_sides_are_balanced_and_random() -> None:
    spelled = ["".join(entry.tuned for entry in blind(pairs(400), seed=7)[1].items.values()) for _ in range(2)]
    assert [text.count("a") for text in spelled] == [200, 200]
    assert spelled[0] != spelled[1]  # one chance in about 10 to the 119
    # Shuffled, not in turn: as many changes of side as coin tosses make, 5 standard deviations wide.
    changes = sum(left != right for left, right in zip(spelled[0], spelled[0][1:], strict=False))
    assert 150 < changes < 250


def test_no_two_processes_draw_alike() -> None:
    """Nothing that a run records, a seed above all, may tell the sides."""
    code = (
        "import random; random.seed(7)\n"
        "from medtune.evaluation.human.blinding import blind\nfrom medtune.records import Prediction\n"
        "answer = Prediction('1', '?', '.', 'x')\n"
        "print(*(entry.tuned for entry in blind([(answer, answer)] * 200, seed=7)[1].items.values()))"
    )
    drawn = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert drawn[0].stdout.count("a") == 100
    assert drawn[0].stdout != drawn[1].stdout


def test_the_side_of_an_odd_item_is_drawn() -> None:
    assert {blind(pairs(1), seed=7)[1].items["1"].tuned for _ in range(60)} == {"a", "b"}


def test_the_order_is_not_the_runs_nor_the_same_twice() -> None:
    first, second = ([entry.row for entry in blind(pairs(50), seed=7)[1].items.values()] for _ in range(2))
    assert first != second
    assert first != sorted(first, key=lambda row: int(row[4:]))


def test_sheets_have_names_of_their_own_that_no_spreadsheet_reads_as_numbers() -> None:
    names = {blind(pairs(1), seed=7)[1].sheet for _ in range(50)}
    assert len(names) == 50
    assert all(len(name) == 8 and set(name) <= set("bcdfghjkmnpqrstvwxz") for name in names)


def test_white_space_does_not_give_a_model_away() -> None:
    (item,), _ = blind(pairs(1, baseline=" \nbefore\n\n", tuned="after\t"), seed=7)
    assert {item.answer_a, item.answer_b} == {"before", "after"}


def test_an_empty_answer_is_shown_as_one() -> None:
    (item,), key = blind(pairs(1, baseline=" ", tuned=""), seed=7)
    assert (item.answer_a, item.answer_b) == ("(empty answer)", "(empty answer)")
    assert key.items["1"].identical


def test_identical_answers_are_marked_in_the_key() -> None:
    _, key = blind([*pairs(1), *pairs(1, tuned="before {}")], seed=7)
    assert sorted(entry.identical for entry in key.items.values()) == [False, True]


def test_a_key_survives_its_file() -> None:
    key = Key("bcdfghjk", {"1": KeyEntry("é-1", "causes", "", "b", False)}, 3, {"tuned": "00"})
    assert parse_key(key_json(key), "key.json") == key


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda key: key.pop("sheet"), "sheet: Field required"),
        (lambda key: key["items"]["1"].update(tuned="c"), "items.1.tuned: Input should be 'a' or 'b'"),
        (lambda key: key.update(items=[]), "items: Input should be"),
    ],
)
def test_what_is_no_key(change, problem: str) -> None:
    key = json.loads(key_json(blind(pairs(1), seed=7)[1]))
    change(key)
    with pytest.raises(DataError, match=r"^k\.json: not a key of `medtune human export` ") as caught:
        parse_key(json.dumps(key), "k.json")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_json() -> None:
    with pytest.raises(DataError, match=r"^k\.json: not a key of `medtune human export` \(Invalid JSON"):
        parse_key("{", "k.json")
