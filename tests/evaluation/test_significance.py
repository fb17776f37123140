from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from medtune.evaluation.metrics.bleu import bleu_parts, bleu_rows
from medtune.evaluation.significance import (
    Resamples,
    holm,
    paired_p_value,
    percentile_interval,
    rows_needed,
)

Numbers = NDArray[np.float64]

SEED = 12345
RESAMPLES = 1000


def bleu_values(sums: Numbers) -> Numbers:
    return np.array([bleu_parts(row).score for row in sums])


def mean_values(sums: Numbers) -> Numbers:
    return np.asarray(sums[:, 0] / sums[:, 1])


# Beside sacrebleu ---------------------------------------------------------------------------------------------------


def noisy_copies(references: Sequence[str], share_kept: float, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    vocabulary = sorted({word for text in references for word in text.split()})
    return [
        " ".join(
            word if generator.random() < share_kept else vocabulary[generator.integers(len(vocabulary))]
            for word in text.split()
        )
        for text in references
    ]


@pytest.fixture(scope="module")
def references() -> list[str]:
    generator = np.random.default_rng(1)
    words = [f"w{number}" for number in range(60)]
    return [" ".join(generator.choice(words, size=generator.integers(6, 20))) for _ in range(240)]


@pytest.fixture(scope="module")
def systems(references: list[str]) -> list[list[str]]:
    """A baseline, and one that is clearly better, slightly better, no better and clearly worse."""
    kept = (0.70, 0.82, 0.715, 0.70, 0.55)
    return [noisy_copies(references, share, seed) for seed, share in enumerate(kept, start=10)]


@pytest.fixture(scope="module")
def resampled(references: list[str], systems: list[list[str]]) -> list[Numbers]:
    """Our resampled BLEU of every system, every row its own group."""
    drawn = Resamples.draw([""] * len(references), resamples=RESAMPLES, seed=SEED)
    return [bleu_values(drawn.sums(bleu_rows(system, references))) for system in systems]


@pytest.fixture(scope="module")
def official(references: list[str], systems: list[list[str]]) -> list[float]:
    """sacrebleu's p-values of every system but the first, against the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SACREBLEU_SEED", str(SEED))
        named = [(f"system {number}", system) for number, system in enumerate(systems)]
        _, results = PairedTest(named, {"BLEU": BLEU()}, [references], test_type="bs", n_samples=RESAMPLES, n_jobs=1)()
    return [result.p_value for result in results["BLEU"][1:]]


def our_p_values(references: list[str], systems: list[list[str]], resampled: list[Numbers]) -> list[float]:
    observed = [bleu_parts(bleu_rows(system, references).sum(axis=0)).score for system in systems]
    return [
        paired_p_value(values - resampled[0], value - observed[0])
        for values, value in zip(resampled[1:], observed[1:], strict=True)
    ]


def test_resamples_of_single_rows_are_sacrebleus(
    references: list[str], systems: list[list[str]], resampled: list[Numbers]
) -> None:
    metric = BLEU()
    statistics = np.array(metric._extract_corpus_statistics(systems[0], [references]))
    count = len(references)
    picked = np.random.default_rng(SEED).choice(count, size=(RESAMPLES, count), replace=True)
    theirs = [metric._compute_score_from_stats(list(rows.sum(axis=0))).score for rows in statistics[picked]]
    assert resampled[0] == pytest.approx(theirs, abs=1e-9)
    assert len(set(theirs)) > RESAMPLES // 2


def test_sacrebleus_p_follows_from_our_resamples(
    references: list[str], systems: list[list[str]], resampled: list[Numbers], official: list[float]
) -> None:
    """Its formula, absolute differences less their mean, on our numbers gives its p to the last digit."""
    scores = [bleu_parts(bleu_rows(system, references).sum(axis=0)).score for system in systems]
    for values, score, p_value in zip(resampled[1:], scores[1:], official, strict=True):
        moved = np.abs(values - resampled[0])
        beyond = np.count_nonzero(moved - moved.mean() > abs(score - scores[0]))
        assert (beyond + 1) / (RESAMPLES + 1) == pytest.approx(p_value, abs=1e-12)


def test_our_p_is_two_sided_where_sacrebleus_is_one_sided(
    references: list[str], systems: list[list[str]], resampled: list[Numbers], official: list[float]
) -> None:
    ours = our_p_values(references, systems, resampled)
    better, slightly, same, worse = zip(ours, official, strict=True)
    for clear in (better, worse):
        assert clear == (pytest.approx(1 / 1001), pytest.approx(1 / 1001))
    for unclear in (slightly, same):
        assert unclear[0] > 0.05
        assert 1.5 < unclear[0] / unclear[1] < 3  # 2 where the normal law holds, up to 2.8 near no difference
    assert official[1] < 0.05 < ours[1]  # at the same seed, the one-sided test would have found one here
    assert slightly[0] < same[0]


# Calibration --------------------------------------------------------------------------------------------------------

PairMaker = Callable[[np.random.Generator], tuple[list[str], Numbers, Numbers]]


def unequal_groups(generator: np.random.Generator, count: int = 120) -> tuple[list[str], NDArray[np.intp]]:
    """Topics of 1 to 9 rows: names row by row, and each row's number of topic."""
    group_of_row = np.repeat(np.arange(count), generator.integers(1, 10, size=count))
    return [f"topic {number}" for number in group_of_row], group_of_row


def scores_in_groups(generator: np.random.Generator, gain: float = 0.0) -> tuple[list[str], Numbers, Numbers]:
    """Two systems' row scores: topics are hard or easy for both, and each system has topics that it is good at."""
    names, group = unequal_groups(generator)
    difficulty = generator.normal(0.4, 0.1, size=group.max() + 1)
    sides = []
    for added in (0.0, gain):
        strength = generator.normal(0.0, 0.08, size=group.max() + 1)
        values = added + difficulty[group] + strength[group] + generator.normal(0.0, 0.05, size=len(group))
        sides.append(np.column_stack([values, np.ones(len(group))]))
    return names, sides[0], sides[1]


def counts_in_groups(generator: np.random.Generator, gain: float = 0.0) -> tuple[list[str], Numbers, Numbers]:
    """Two systems' BLEU counts, made the same way: longer n-grams match more rarely."""
    names, group = unequal_groups(generator)
    lengths = generator.integers(20, 60, size=len(group))
    sides = []
    for added in (0.0, gain):
        share = np.clip(generator.normal(0.5 + added, 0.1, size=group.max() + 1), 0.05, 0.95)[group]
        totals = np.column_stack([lengths - order for order in range(4)])
        matched = np.column_stack([generator.binomial(totals[:, order], share ** (order + 1)) for order in range(4)])
        sides.append(np.column_stack([lengths, lengths, matched, totals]).astype(np.float64))
    return names, sides[0], sides[1]


def p_value(
    names: Sequence[str], before: Numbers, after: Numbers, values: Callable[[Numbers], Numbers], resamples: int
) -> float:
    drawn = Resamples.draw(names, resamples=resamples, seed=0)
    differences = values(drawn.sums(after)) - values(drawn.sums(before))
    observed = values(after.sum(axis=0, keepdims=True)) - values(before.sum(axis=0, keepdims=True))
    return paired_p_value(differences, float(observed[0]))


@pytest.mark.parametrize(
    ("make", "values", "resamples"), [(scores_in_groups, mean_values, 400), (counts_in_groups, bleu_values, 200)]
)
def test_pairs_that_do_not_differ_are_told_from_none(
    make: PairMaker, values: Callable[[Numbers], Numbers], resamples: int
) -> None:
    pairs = [make(np.random.default_rng(seed)) for seed in range(200)]
    by_group = [p_value(*pair, values, resamples) for pair in pairs]
    assert sum(p >= 0.05 for p in by_group) >= 183
    # Neither is the test blind: a p of half is as common as it should be.
    assert 70 <= sum(p >= 0.5 for p in by_group) <= 130


def test_resampling_rows_instead_of_groups_fails_that_calibration() -> None:
    """Rows of one topic move together: drawn one by one they pass for more evidence than they are."""
    pairs = [scores_in_groups(np.random.default_rng(seed)) for seed in range(200)]
    by_row = [p_value([""] * len(names), before, after, mean_values, 400) for names, before, after in pairs]
    assert sum(p >= 0.05 for p in by_row) < 140


@pytest.mark.parametrize(
    ("make", "values", "gain"), [(scores_in_groups, mean_values, 0.06), (counts_in_groups, bleu_values, 0.08)]
)
def test_a_planted_difference_is_found(
    make: Callable[..., tuple[list[str], Numbers, Numbers]], values: Callable[[Numbers], Numbers], gain: float
) -> None:
    found = [
        p_value(*make(np.random.default_rng(seed), planted), values, 200) < 0.05
        for seed in range(20)
        for planted in (gain, -gain)
    ]
    assert sum(found) >= 38


# Resamples ----------------------------------------------------------------------------------------------------------


def test_whole_groups_are_drawn() -> None:
    groups = ["a", "b", "a", "c", "b", "a"]
    drawn = Resamples.draw(groups, resamples=50, seed=3)
    assert drawn.group_count == 3
    assert drawn.weights.shape == (50, 3)
    assert (drawn.weights.sum(axis=1) == 3).all()
    ones = np.eye(6)  # a column a row: the sums say how often each row was drawn
    counts = drawn.sums(ones)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 0] == counts[:, 5]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert len({tuple(row) for row in counts}) > 5


def test_an_empty_group_is_a_row_by_itself() -> None:
    assert Resamples.draw(["", "", "a", "a", ""], resamples=10, seed=0).group_count == 4


def test_names_of_groups_move_nothing_and_seeds_do() -> None:
    rows = np.arange(8.0).reshape(4, 2)
    first = Resamples.draw(["b", "a", "b", "c"], resamples=20, seed=1).sums(rows)
    assert (first == Resamples.draw(["x", "z", "x", "y"], resamples=20, seed=1).sums(rows)).all()
    assert (first != Resamples.draw(["b", "a", "b", "c"], resamples=20, seed=2).sums(rows)).any()


def test_sums_equal_the_sums_of_resampled_rows() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(30, 3))
    drawn = Resamples.draw([""] * 30, resamples=40, seed=9)
    picked = np.random.default_rng(9).choice(30, size=(40, 30), replace=True)
    assert drawn.sums(rows) == pytest.approx(rows[picked].sum(axis=1))


def test_an_infinite_loss_spoils_the_interval_and_says_nothing() -> None:
    rows = np.array([[1.0, 1.0], [math.inf, 1.0], [2.0, 1.0]])
    drawn = Resamples.draw(["", "", ""], resamples=30, seed=0)
    assert drawn.interval(mean_values(drawn.sums(rows))) is None


def test_one_group_has_neither_interval_nor_p() -> None:
    """All its resamples are the group itself: any difference would look certain."""
    one = Resamples.draw(["a", "a", "a"], resamples=100, seed=0)
    values = np.full(100, 0.5)
    assert one.interval(values) is None
    assert math.isnan(one.p_value(values, 0.5))
    two = Resamples.draw(["a", "a", "b"], resamples=100, seed=0)
    assert two.interval(values) == (0.5, 0.5)
    assert two.p_value(values, 0.5) == pytest.approx(1 / 101)


# Intervals and p-values ---------------------------------------------------------------------------------------------


def test_percentile_interval() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert percentile_interval(values) == pytest.approx((25.0, 975.0))
    assert percentile_interval(values, 0.8) == pytest.approx((100.0, 900.0))
    for odd in (math.nan, math.inf, -math.inf):
        assert percentile_interval(np.array([1.0, odd])) is None


def test_an_interval_covers_what_it_should() -> None:
    """The mean of 100 topics of unequal size lies in its 95 % interval about 19 times in 20."""
    covered = 0
    for seed in range(200):
        names, before, _ = scores_in_groups(np.random.default_rng(seed))
        drawn = Resamples.draw(names, resamples=300, seed=0)
        interval = drawn.interval(mean_values(drawn.sums(before)))
        assert interval is not None
        covered += interval[0] <= 0.4 <= interval[1]
    assert 180 <= covered <= 198


def test_p_counts_both_tails_of_the_centred_differences() -> None:
    differences = np.array([1.0, 2.0, 3.0, 4.0, 5.0])  # centred: -2, -1, 0, 1, 2
    assert paired_p_value(differences, 2.0) == pytest.approx(3 / 6)
    assert paired_p_value(differences, -2.0) == pytest.approx(3 / 6)
    assert paired_p_value(differences, 1.5) == pytest.approx(3 / 6)
    assert paired_p_value(differences, 1.0) == pytest.approx(5 / 6)
    assert paired_p_value(differences, 2.1) == pytest.approx(1 / 6)
    # By their own mean, 2.5: not by their median, by what was observed, or not at all.
    skewed = np.array([0.0, 0.0, 0.0, 10.0])
    assert paired_p_value(skewed, 2.5) == pytest.approx(5 / 5)
    assert paired_p_value(skewed, 3.0) == pytest.approx(2 / 5)
    assert paired_p_value(skewed, 4.0) == pytest.approx(2 / 5)


def test_a_system_beside_itself_has_p_1() -> None:
    assert paired_p_value(np.zeros(100), 0.0) == 1
    assert paired_p_value(np.random.default_rng(0).normal(size=100), 0.0) == 1


def test_p_of_what_is_no_number_is_none() -> None:
    assert math.isnan(paired_p_value(np.array([1.0, math.inf]), 1.0))
    assert math.isnan(paired_p_value(np.array([1.0, math.nan]), 1.0))
    assert math.isnan(paired_p_value(np.array([1.0, 2.0]), math.nan))
    assert math.isnan(paired_p_value(np.array([1.0, 2.0]), -math.inf))


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


# The n it would take ------------------------------------------------------------------------------------------------


def test_rows_needed_by_hand() -> None:
    """(1.960 + 0.842)² = 7.849 squared standard deviations of a row over the squared difference."""
    generator = np.random.default_rng(0)
    of_row = 1.0
    differences = generator.normal(0.1, of_row / math.sqrt(200), size=200_000)
    assert rows_needed(differences, 0.1, 200) == pytest.approx(785, rel=0.02)
    assert rows_needed(differences, -0.1, 200) == rows_needed(differences, 0.1, 200)
    assert rows_needed(differences, 0.2, 200) == pytest.approx(785 / 4, rel=0.02)
    # Ten tests at once: (2.807 + 0.842)² = 13.31.
    assert rows_needed(differences, 0.1, 200, tests=10) == pytest.approx(1331, rel=0.02)


def test_that_many_rows_find_the_difference_four_times_in_five() -> None:
    rows = rows_needed(np.random.default_rng(0).normal(0.1, 0.1, size=100_000), 0.1, 100)  # rows deviate by 1
    assert rows is not None
    means = np.random.default_rng(1).normal(0.1, 1 / math.sqrt(rows), size=20_000)
    assert np.mean(np.abs(means) > 1.959964 / math.sqrt(rows)) == pytest.approx(0.8, abs=0.02)


def test_rows_needed_does_not_depend_on_the_rows_there_are() -> None:
    """Twice the groups halve the variance of a resampled difference, so that the same n comes out."""
    needed = []
    for count in (200, 400, 800):
        generator = np.random.default_rng(count)
        names, group = unequal_groups(generator, count)
        values = generator.normal(0, 0.3, size=count)[group] + generator.normal(0, 0.1, size=len(group))
        drawn = Resamples.draw(names, resamples=2000, seed=0)
        differences = mean_values(drawn.sums(np.column_stack([values, np.ones(len(group))])))
        needed.append(rows_needed(differences, 0.02, len(group)))
    assert needed[1] == pytest.approx(needed[0], rel=0.2)
    assert needed[2] == pytest.approx(needed[0], rel=0.2)


def test_no_rows_establish_a_difference_of_nothing() -> None:
    spread = np.array([0.1, 0.2, 0.4])
    assert rows_needed(spread, 0.0, 10) is None
    assert rows_needed(spread, math.nan, 10) is None
    assert rows_needed(np.array([0.1, math.inf]), 0.1, 10) is None
    assert rows_needed(np.full(5, 0.1), 0.1, 10) is None
