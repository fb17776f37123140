"""How often the paired test errs where the truth is known: the tables in docs/method.md, cell by cell."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration import EXCHANGEABLE, GROUPS, SCORES, SIZES, Worlds, decide_by_bootstrap, decide_by_subsamples, rates
from medtune.evaluation.metrics.bleu import BLEU
from medtune.evaluation.metrics.perplexity import BITS_PER_BYTE, PERPLEXITY
from medtune.evaluation.significance import SIGNIFICANCE_LEVEL, Subsamples

Numbers = NDArray[np.float64]
WORLDS = 1000
# By chance one or two of sixty cells lie over two standard errors: a seed at which none does.
SEED = 1
# The more groups, the longer a simulation takes.
FEW_FIRST = [pytest.param(groups, marks=[pytest.mark.slow] if groups > 15 else []) for groups in GROUPS]


def highest_level(worlds: int) -> float:
    """The level plus two standard errors of a simulation of so many worlds."""
    return SIGNIFICANCE_LEVEL + 2 * math.sqrt(SIGNIFICANCE_LEVEL * (1 - SIGNIFICANCE_LEVEL) / worlds)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("scores", EXCHANGEABLE)
@pytest.mark.parametrize("groups", FEW_FIRST)
def test_the_level_holds_and_intervals_cover(sizes: str, scores: str, groups: int) -> None:
    found = rates(Worlds.draw(sizes, scores, groups, WORLDS, SEED), decide_by_subsamples)
    assert found.rejected <= highest_level(WORLDS)
    assert found.rejected >= 0.02  # a test that never speaks holds every level
    assert found.covered >= 0.93
    assert found.rejected + found.covered == pytest.approx(1)  # interval and verdict are one


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("groups", FEW_FIRST)
def test_intervals_of_skewed_differences_cover_nearly_as_often(sizes: str, groups: int) -> None:
    """No two systems that could be swapped: the level is not exact here, and the report says where that matters."""
    found = rates(Worlds.draw(sizes, "skewed differences", groups, WORLDS, SEED), decide_by_subsamples)
    assert found.covered >= (0.92 if groups >= 30 else 0.90)
    assert found.rejected <= 0.08


def test_the_worlds_catch_the_test_of_before() -> None:
    few = rates(Worlds.draw("even", "normal", 8, WORLDS, SEED), decide_by_bootstrap)
    assert few.rejected > 2 * SIGNIFICANCE_LEVEL
    assert few.covered < 0.90
    assert rates(Worlds.draw("dominated", "normal", 350, 300, SEED), decide_by_bootstrap).rejected > 0.1


def test_rows_for_groups_fail_the_calibration() -> None:
    """Rows of one topic move together: drawn one by one they pass for more evidence than they are."""
    worlds = Worlds.draw("even", "normal", 30, 300, SEED)
    spread = np.repeat(worlds.differences / 4, 4, axis=1)
    by_row = rates(Worlds(np.ones(120), spread), decide_by_subsamples)
    assert by_row.rejected > 0.2


def test_every_kind_of_scores_has_a_mean_of_zero() -> None:
    for scores in SCORES:
        worlds = Worlds.draw("even", scores, 350, 300)
        means = worlds.differences.sum(axis=1) / worlds.sizes.sum()
        assert abs(means.mean()) < 4 * means.std() / math.sqrt(len(means))


# Metrics that are no means ------------------------------------------------------------------------------------------

PairMaker = Callable[[np.random.Generator, Numbers], tuple[Numbers, Numbers]]


def bleu_counts(generator: np.random.Generator, sizes: Numbers) -> tuple[Numbers, Numbers]:
    """Sums by group of two systems' counts: on each topic each is good or bad by chance, on all they are alike."""
    references = np.array([generator.integers(20, 90, int(rows)).sum() for rows in sizes])
    systems = []
    for _ in range(2):
        lengths = np.round(references * generator.uniform(0.8, 1.2, len(sizes)))
        share = np.clip(generator.normal(0.5, 0.1, len(sizes)), 0.05, 0.95)
        totals = np.column_stack([lengths - order * sizes for order in range(4)])
        matched = np.column_stack([generator.binomial(totals[:, n].astype(int), share ** (n + 1)) for n in range(4)])
        systems.append(np.column_stack([lengths, references, matched, totals]))
    return systems[0], systems[1]


def likelihoods(generator: np.random.Generator, sizes: Numbers) -> tuple[Numbers, Numbers]:
    tokens = np.array([generator.integers(20, 200, int(rows)).sum() for rows in sizes])
    first, second = (tokens * (2 + generator.normal(0, 0.4, len(sizes))) for _ in range(2))
    return np.column_stack([first, tokens]), np.column_stack([second, tokens])


@pytest.mark.parametrize(
    ("make", "values", "worlds", "splits"),
    [(bleu_counts, BLEU.values, 300, 120), (likelihoods, PERPLEXITY.values, 600, 300)],
    ids=["BLEU", "perplexity"],
)
@pytest.mark.parametrize("sizes", ["even", "dominated"])
@pytest.mark.parametrize("groups", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_the_level_holds_for_ratios_of_sums(
    make: PairMaker, values: Callable[[Numbers], Numbers], worlds: int, splits: int, sizes: str, groups: int
) -> None:
    generator = np.random.default_rng(groups)
    drawn = [Subsamples.draw([str(group) for group in range(groups)], splits=splits, seed=seed) for seed in range(6)]
    rejected = 0
    for world in range(worlds):
        before, after = make(generator, SIZES[sizes](groups, generator))
        splits_of = drawn[world % len(drawn)]
        differences = values(splits_of.sums(after)) - values(splits_of.sums(before))
        observed = values(after.sum(axis=0, keepdims=True)) - values(before.sum(axis=0, keepdims=True))
        rejected += splits_of.p_value(differences, float(observed[0])) <= SIGNIFICANCE_LEVEL
    assert rejected / worlds <= highest_level(worlds)


def test_perplexity_and_bits_per_byte_have_one_p() -> None:
    generator = np.random.default_rng(0)
    before, after = likelihoods(generator, np.full(20, 4.0))
    drawn = Subsamples.draw([str(group) for group in range(20)], splits=1000, seed=0)
    p_values = []
    for metric, scale in ((PERPLEXITY, 1.0), (BITS_PER_BYTE, 1 / math.log(2))):
        sides = [np.column_stack([side[:, 0] * scale, side[:, 1]]) for side in (before, after)]
        differences = metric.values(drawn.sums(sides[1])) - metric.values(drawn.sums(sides[0]))
        totals = [metric.values(side.sum(axis=0, keepdims=True))[0] for side in sides]
        p_values.append(drawn.p_value(differences, float(totals[1] - totals[0])))
    assert p_values[0] == p_values[1]
    assert 0 < p_values[0] < 1
