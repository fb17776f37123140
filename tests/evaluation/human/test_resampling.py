"""An interval and a test of ratings, beside every draw that there is."""

from __future__ import annotations

from itertools import product

import pytest

from medtune.evaluation.human.resampling import mean_interval, sign_flip_p_value


def test_the_interval_of_unequal_groups() -> None:
    """Three groups of 1, 2 and 3 values: all 27 equally likely draws, by hand."""
    values, groups = [1, 0, 1, 0, 0, 1], ["x", "y", "y", "z", "z", "z"]
    sums, counts = {"x": 1, "y": 1, "z": 1}, {"x": 1, "y": 2, "z": 3}
    means = [sum(sums[g] for g in draw) / sum(counts[g] for g in draw) for draw in product("xyz", repeat=3)]
    assert mean_interval(values, groups) == pytest.approx((min(means), max(means)))


def test_the_sign_flip_test_by_enumeration() -> None:
    outcomes, groups = [1, 1, -1, 1, 1, 1, 0, 1], list("aabcdefg")
    sums = [2, -1, 1, 1, 1, 0, 1]
    draws = [abs(sum(s * sign for s, sign in zip(sums, signs, strict=True))) for signs in product((1, -1), repeat=7)]
    exact = sum(draw >= abs(sum(sums)) for draw in draws) / len(draws)
    assert sign_flip_p_value(outcomes, groups) == pytest.approx(exact, abs=0.015)


def test_one_value_everywhere_has_no_spread() -> None:
    assert mean_interval([0.5] * 6, ["x", "y", "y", "z", "z", "z"]) == (0.5, 0.5)


def test_the_test_is_two_sided_and_never_gives_zero() -> None:
    groups = [str(number) for number in range(30)]
    wins, losses = sign_flip_p_value([1] * 30, groups), sign_flip_p_value([-1] * 30, groups)
    assert wins == losses == 1 / 10_001
    assert sign_flip_p_value([1, -1], ["x", "y"]) == 1
    assert sign_flip_p_value([0] * 5, groups[:5]) == 1


def test_rows_of_one_group_keep_one_sign() -> None:
    apart = sign_flip_p_value([1] * 6, [str(number) for number in range(6)])
    assert apart == pytest.approx(2 / 2**6, abs=0.01)
    assert sign_flip_p_value([1] * 6, ["x"] * 3 + ["y"] * 3) == pytest.approx(2 / 2**2, abs=0.03)
