import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import permutation_test

from medtune.evaluation.significance import (
    SIGNIFICANCE_LEVEL,
    Subsamples,
    detectable_difference,
    fewest_groups,
    group_sizes,
    holm,
    holm_levels,
    rows_needed,
)

Numbers = NDArray[np.float64]


def mean_values(sums: Numbers) -> Numbers:
    return np.asarray(sums[:, 0] / sums[:, 1])


def with_counts(values: Sequence[float] | Numbers) -> Numbers:
    return np.column_stack([values, np.ones(len(values))])


def single_rows(count: int, splits: int = 1000, seed: int = 0) -> Subsamples:
    return Subsamples.draw([""] * count, splits=splits, seed=seed)


# Splits -------------------------------------------------------------------------------------------------------------


def test_whole_groups_go_to_one_side_or_the_other() -> None:
    drawn = Subsamples.draw(["a", "b", "a", "c", "b", "a"], splits=50, seed=3)
    assert drawn.group_count == 3
    counts = drawn.sums(np.eye(6))  # a column a row: the sums say which rows a part holds
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 0] == counts[:, 5]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    first, second = counts.reshape(2, drawn.splits, 6)
    assert (first + second == 1).all()


def test_few_groups_are_split_in_every_way() -> None:
    drawn = Subsamples.draw(list("abcd"), splits=7, seed=0)
    parts = {tuple(part) for part in np.concatenate([drawn.first, ~drawn.first])}
    assert drawn.splits == 7
    assert parts == set(itertools.product([False, True], repeat=4)) - {(False,) * 4, (True,) * 4}
    assert Subsamples.draw(list("abcd"), splits=6, seed=0).splits <= 6


def test_every_part_of_many_groups_holds_some() -> None:
    drawn = Subsamples.draw(list("abcde"), splits=14, seed=1)
    assert 0 < drawn.splits <= 14
    assert drawn.first.any(axis=1).all()
    assert not drawn.first.all(axis=1).any()


def test_an_empty_group_is_a_row_by_itself() -> None:
    assert Subsamples.draw(["", "", "a", "a", ""], splits=10, seed=0).group_count == 4


def test_names_of_groups_move_nothing_and_seeds_do() -> None:
    rows = np.arange(60.0).reshape(30, 2)
    names = [f"topic {row % 20}" for row in range(30)]
    first = Subsamples.draw(names, splits=20, seed=1).sums(rows)
    assert (first == Subsamples.draw([f"x{name}" for name in names], splits=20, seed=1).sums(rows)).all()
    assert (first != Subsamples.draw(names, splits=20, seed=2).sums(rows)).any()


def test_an_infinite_loss_leaves_neither_interval_nor_p() -> None:
    rows = np.array([[1.0, 1.0], [math.inf, 1.0], [2.0, 1.0], *([[1.0, 1.0]] * 5)])
    drawn = single_rows(8)
    assert drawn.interval(mean_values(drawn.sums(rows))) is None
    assert math.isnan(drawn.p_value(mean_values(drawn.sums(rows)), 1.0))
    assert math.isnan(drawn.standard_error(mean_values(drawn.sums(rows))))


# The test -----------------------------------------------------------------------------------------------------------


def test_p_is_scipys_of_the_same_sign_flips() -> None:
    """Where all flips are made, the p-value of a mean is the exact one of Fisher's randomisation test."""
    values = np.random.default_rng(4).normal(0.3, 1, 10)
    drawn = single_rows(10, splits=1023)
    ours = drawn.p_value(mean_values(drawn.sums(with_counts(values))), float(values.mean()))
    theirs = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_p_of_groups_flips_their_sums() -> None:
    names = ["a", "a", "a", "b", "c", "c", "d", "e", "f", "f"]
    values = np.random.default_rng(5).normal(0.4, 1, len(names))
    sums = np.array([sum(v for n, v in zip(names, values, strict=True) if n == name) for name in "abcdef"])
    drawn = Subsamples.draw(names, splits=1000, seed=0)
    ours = drawn.p_value(mean_values(drawn.sums(with_counts(values))), float(values.mean()))
    flipped = [abs(np.dot(signs, sums)) for signs in itertools.product([-1, 1], repeat=6)]
    assert ours == pytest.approx(np.mean(np.array(flipped) >= abs(sums.sum()) - 1e-12))


def test_p_has_two_sides() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 40)
    drawn = single_rows(40)
    p_values = [
        drawn.p_value(mean_values(drawn.sums(with_counts(sign * values))), sign * float(values.mean()))
        for sign in (1, -1)
    ]
    assert p_values[0] == p_values[1]


def test_a_system_beside_itself_has_p_1() -> None:
    drawn = single_rows(40)
    assert drawn.p_value(np.zeros(2 * drawn.splits), 0.0) == 1
    # A rounding error is no difference.
    tiny = np.random.default_rng(0).normal(0, 1e-17, 2 * drawn.splits)
    assert drawn.p_value(tiny, 0.0) > 0.2


def test_one_group_has_neither_interval_nor_p() -> None:
    """Nothing is left to compare it with: any difference would look certain."""
    one = Subsamples.draw(["a", "a", "a"], splits=100, seed=0)
    values = mean_values(one.sums(with_counts([1.0, 2.0, 3.0])))
    assert one.interval(values) is None
    assert math.isnan(one.p_value(values, 2.0))


# Intervals ----------------------------------------------------------------------------------------------------------


def test_an_interval_by_hand() -> None:
    """Of six rows 31 splits: at 90 % three of the 32 ways may lie beyond an end, so that the third largest is it."""
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    drawn = single_rows(6)
    parts = mean_values(drawn.sums(with_counts(values))).reshape(2, -1)
    assert drawn.splits == 31
    highs, lows = sorted(parts.max(axis=0), reverse=True), sorted(parts.min(axis=0))
    assert drawn.interval(parts.ravel(), 0.90) == (lows[2], highs[2])
    assert drawn.interval(parts.ravel(), 0.95) == (lows[0], highs[0])
    assert lows[0] == 1.0  # the smallest mean of any part
    assert drawn.interval(parts.ravel(), 0.97) is None  # one of 32 is more than 3 %


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=30), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_an_interval_leaves_out_what_the_test_rejects(values: list[float], confidence: float) -> None:
    drawn = single_rows(len(values), splits=300)
    for shift in (0.0, 0.37, -1.21):
        shifted = np.asarray(values) - shift
        parts = mean_values(drawn.sums(with_counts(shifted)))
        interval, p = drawn.interval(parts, confidence), drawn.p_value(parts, float(shifted.mean()))
        margin = 1e-6 * max(1.0, float(np.abs(shifted).max()))
        if interval is None or min(map(abs, interval)) < margin or abs(shifted.mean()) < margin:
            continue
        assert (p <= 1 - confidence + 1e-12) == (not interval[0] <= 0 <= interval[1])


def test_an_interval_of_a_shifted_metric_is_shifted() -> None:
    values = np.random.default_rng(2).normal(0, 1, 25)
    drawn = single_rows(25)
    low, high = drawn.interval(mean_values(drawn.sums(with_counts(values)))) or (0, 0)
    moved = drawn.interval(mean_values(drawn.sums(with_counts(values + 3))))
    assert moved == pytest.approx((low + 3, high + 3))
    assert low < values.mean() < high


# Several tests ------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]) == []


def test_holm_leaves_out_what_is_no_test() -> None:
    adjusted = holm([math.nan, 0.02, 0.03, math.nan])
    assert adjusted[1:3] == pytest.approx([0.04, 0.04])
    assert math.isnan(adjusted[0])
    assert math.isnan(adjusted[3])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1.0, len(p_values) * p) or corrected == pytest.approx(p)
    by_size = [corrected for _, corrected in sorted(zip(p_values, adjusted, strict=True))]
    assert by_size == sorted(by_size)
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def test_levels_by_hand() -> None:
    assert holm_levels([0.001, 0.02, 0.04]) == pytest.approx([0.05 / 3, 0.05 / 2, 0.05])
    # The second is not significant, so that the third is held to the second's level.
    assert holm_levels([0.001, 0.03, 0.04]) == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2])
    assert holm_levels([0.9, 0.02, 0.5]) == pytest.approx([0.05 / 3] * 3)
    assert math.isnan(holm_levels([math.nan, 0.01])[0])
    assert holm_levels([]) == []


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=6))
def test_a_level_rejects_what_holm_rejects(p_values: list[float]) -> None:
    for p, level, adjusted in zip(p_values, holm_levels(p_values), holm(p_values), strict=True):
        if abs(adjusted - SIGNIFICANCE_LEVEL) > 1e-9:
            assert (p <= level) == (adjusted <= SIGNIFICANCE_LEVEL)


def test_the_fewest_groups_are_those_whose_smallest_p_can_be_significant() -> None:
    assert [fewest_groups(tests) for tests in (1, 3, 10)] == [6, 7, 9]
    for tests in (1, 2, 3, 10):
        groups = fewest_groups(tests)
        for count, possible in ((groups, True), (groups - 1, False)):
            drawn = single_rows(count)
            values = mean_values(drawn.sums(with_counts(np.ones(count))))
            assert (drawn.p_value(values, 1.0) * tests <= SIGNIFICANCE_LEVEL) == possible


# Sizes and power ----------------------------------------------------------------------------------------------------


def test_effective_groups() -> None:
    even = group_sizes(["a", "b", "c", "a", "b", "c"])
    assert (even.groups, even.effective, even.largest_share) == (3, pytest.approx(3), pytest.approx(1 / 3))
    uneven = group_sizes(["a"] * 8 + ["b", ""])
    assert (uneven.groups, uneven.largest, uneven.largest_share) == (3, "a", 0.8)
    assert uneven.effective == pytest.approx(100 / 66)
    alone = group_sizes([""] * 5)
    assert group_sizes(["b", "a", "a"], ["first", "second", "third"]).largest_question == "second"
    assert alone.largest_question == group_sizes([""], ["only"]).largest_question == ""
    assert (alone.groups, alone.effective, alone.largest, alone.largest_share) == (5, 5, "", 0.2)


@pytest.mark.parametrize("sizes", [[1] * 60, [1, 2, 3, 4, 5, 6] * 10])
def test_the_standard_error_is_that_of_means_over_groups(sizes: list[int]) -> None:
    generator = np.random.default_rng(3)
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    of_group = generator.normal(0, 1, len(sizes))
    values = np.array([of_group[int(name)] for name in groups])
    drawn = Subsamples.draw(groups, splits=4000, seed=0)
    error = drawn.standard_error(mean_values(drawn.sums(with_counts(values))))
    centred = (of_group - values.mean()) * sizes
    assert error == pytest.approx(np.sqrt((centred**2).sum()) / sum(sizes), rel=0.05)


def test_the_detectable_difference_by_hand() -> None:
    # Student's t with 1e9 degrees of freedom is normal: 1.960 + 0.842.
    assert detectable_difference(0.1, 1e9) == pytest.approx(0.28016, abs=1e-4)
    assert detectable_difference(0.1, 1e9, tests=10) == pytest.approx(0.1 * (2.80703 + 0.84162), abs=1e-4)
    assert detectable_difference(0.1, 8) == pytest.approx(0.1 * (2.36462 + 0.89603), abs=1e-4)
    assert detectable_difference(math.nan, 30) is None
    assert detectable_difference(0.1, 1) is None


def test_a_difference_of_that_size_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(0)
    drawn = single_rows(30, splits=400)
    shift = detectable_difference(1 / math.sqrt(30), 30)
    assert shift is not None
    found = 0
    for _ in range(400):
        values = generator.normal(shift, 1, 30)
        found += drawn.p_value(mean_values(drawn.sums(with_counts(values))), float(values.mean())) <= SIGNIFICANCE_LEVEL
    assert found / 400 == pytest.approx(0.8, abs=0.06)


def test_rows_needed() -> None:
    assert rows_needed(0.2, 0.1, 200) == 800
    assert rows_needed(0.2, -0.1, 200) == 800
    assert rows_needed(0.05, 0.1, 200) == 50
    for detectable, observed in ((0.2, 0.0), (0.2, math.nan), (None, 0.1), (0.0, 0.1)):
        assert rows_needed(detectable, observed, 10) is None
