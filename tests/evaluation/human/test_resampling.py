"""An interval and a test of ratings, beside every split that there is."""

from __future__ import annotations

from itertools import product

import pytest

from medtune.evaluation.human.resampling import mean_interval, sign_flip_p_value


def test_the_interval_of_unequal_groups() -> None:
    """Six groups of 1 to 3 values: of the 32 ways to split them, one may lie beyond each end."""
    groups = ["x", "y", "y", "z", "z", "z", "u", "v", "v", "w"]
    values = [1, 0, 1, 0, 0, 1, 1, 0, 0, 1]
    means = []
    for chosen in product([True, False], repeat=6):
        part = [v for v, g in zip(values, groups, strict=True) if dict(zip("xyzuvw", chosen, strict=True))[g]]
        if 0 < len(part) < len(values):
            means.append(sum(part) / len(part))
    assert mean_interval(values, groups, (0, 1)) == pytest.approx((min(means), max(means)))


def test_few_groups_leave_the_whole_scale() -> None:
    assert mean_interval([1] * 5, list("abcde"), (0, 1)) == (0, 1)
    assert mean_interval([2] * 5, ["a"] * 5, (-4, 4)) == (-4, 4)


def test_the_sign_flip_test_by_enumeration() -> None:
    outcomes, groups = [1, 1, -1, 1, 1, 1, 0, 1], list("aabcdefg")
    sums = [2, -1, 1, 1, 1, 0, 1]
    draws = [abs(sum(s * sign for s, sign in zip(sums, signs, strict=True))) for signs in product((1, -1), repeat=7)]
    exact = sum(draw >= abs(sum(sums)) for draw in draws) / len(draws)
    assert sign_flip_p_value(outcomes, groups) == pytest.approx(exact)


def test_one_value_everywhere_has_no_spread() -> None:
    assert mean_interval([0.5] * 7, list("uvwxyzz"), (0, 1)) == (0.5, 0.5)


def test_the_test_is_two_sided_and_never_gives_zero() -> None:
    groups = [str(number) for number in range(30)]
    wins, losses = sign_flip_p_value([1] * 30, groups), sign_flip_p_value([-1] * 30, groups)
    assert wins == losses == 1 / 10_001
    assert sign_flip_p_value([1, -1], ["x", "y"]) == 1
    assert sign_flip_p_value([0] * 5, groups[:5]) == 1


def test_rows_of_one_group_keep_one_sign() -> None:
    apart = sign_flip_p_value([1] * 6, [str(number) for number in range(6)])
    assert apart == pytest.approx(2 / 2**6)
    assert sign_flip_p_value([1] * 6, ["x"] * 3 + ["y"] * 3) == pytest.approx(2 / 2**2)
