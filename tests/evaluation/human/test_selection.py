from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.errors import DataError
from medtune.evaluation.human.selection import allot, select_rows
from medtune.records import Prediction


def test_largest_remainder_by_hand() -> None:
    # Quotas 4.7, 3.3, 1.5, 0.5 of 10: floors are 4, 3, 1, 0, and the two left go to .7 and, of two halves, the larger.
    assert allot({"a": 47, "b": 33, "c": 15, "d": 5}, 10) == {"a": 5, "b": 3, "c": 2, "d": 0}


def test_equal_remainders_go_by_size_and_then_by_name() -> None:
    assert allot({"b": 1, "a": 1, "c": 1}, 2) == {"a": 1, "b": 1, "c": 0}


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1, max_size=8), st.data())
def test_no_quota_is_a_whole_row_off(counts: dict[str, int], data: st.DataObject) -> None:
    total = sum(counts.values())
    n = data.draw(st.integers(1, total))
    quotas = allot(counts, n)
    assert sum(quotas.values()) == n
    assert all(abs(quotas[name] - n * count / total) < 1 for name, count in counts.items())


def row_of(qtype: str, group: str) -> Prediction:
    return Prediction("id", "?", ".", "", qtype=qtype, group=group)


def rows_of(text: str) -> list[Prediction]:
    """`"s1 s2 t1"`: a type's letter and a group's digits each."""
    return [row_of(word[0], word[1:]) for word in text.split()]


def test_shares_of_question_types() -> None:
    rows = [row_of("common", "")] * 60 + [row_of("middling", "")] * 30 + [row_of("rare", "")] * 10
    chosen = select_rows(rows, 10, seed=3)
    assert Counter(rows[i].qtype for i in chosen) == {"common": 6, "middling": 3, "rare": 1}


def test_one_row_a_group_even_where_picking_greedily_would_fail() -> None:
    # s has only group 1 of its own, t has 1 and 2, u has 2 and 3: one assignment of three gives each its own.
    rows = rows_of("s1 s1 t1 t2 u2 u3")
    for seed in range(30):
        chosen = select_rows(rows, 3, seed)
        assert Counter(rows[i].qtype for i in chosen) == {"s": 1, "t": 1, "u": 1}
        assert len({rows[i].group for i in chosen}) == 3


def test_a_second_row_of_a_group_only_where_there_is_no_other() -> None:
    rows = rows_of("s1 s1 s1 s2 s3 s3")
    assert Counter(rows[i].group for i in select_rows(rows, 3, seed=0)) == {"1": 1, "2": 1, "3": 1}
    assert set(Counter(rows[i].group for i in select_rows(rows, 4, seed=0))) == {"1", "2", "3"}
    assert select_rows(rows, 6, seed=0) == [0, 1, 2, 3, 4, 5]


def test_a_group_called_like_a_position_is_not_that_row() -> None:
    assert len(select_rows([row_of("s", "1"), row_of("s", "")], 2, seed=0)) == 2


def test_a_seed_chooses_and_another_chooses_otherwise() -> None:
    rows = [row_of("s", f"{i}") for i in range(100)]
    assert select_rows(rows, 10, seed=1) == select_rows(rows, 10, seed=1)
    assert select_rows(rows, 10, seed=1) != select_rows(rows, 10, seed=2)


def test_every_row_has_its_chance() -> None:
    rows = [row_of("st"[i % 2], f"{i}") for i in range(20)]
    drawn = Counter(i for seed in range(400) for i in select_rows(rows, 5, seed))
    # 100 expected each; 60 is more than four standard deviations away.
    assert len(drawn) == 20
    assert min(drawn.values()) > 60


@given(st.lists(st.tuples(st.sampled_from("stu"), st.sampled_from(["", "1", "2", "3", "4"])), min_size=1), st.data())
def test_quotas_hold_and_nothing_is_taken_twice(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    rows = [row_of(*pair) for pair in pairs]
    n = data.draw(st.integers(1, len(rows)))
    chosen = select_rows(rows, n, seed=0)
    assert len(set(chosen)) == n
    quotas = allot(Counter(row.qtype for row in rows), n)
    assert Counter(rows[i].qtype for i in chosen) == {name: quota for name, quota in quotas.items() if quota}


@pytest.mark.parametrize("n", [0, -1, 4])
def test_n_that_does_not_fit(n: int) -> None:
    with pytest.raises(DataError, match=rf"^--n {n}: this run has 3 test rows to rate; give a number from 1 to 3$"):
        select_rows(rows_of("s1 s2 s3"), n, seed=0)
