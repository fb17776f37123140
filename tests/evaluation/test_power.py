"""What a test set can show before anything is trained, against the comparison that it foretells."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medtune.evaluation.comparison import compare_measured
from medtune.evaluation.metrics import MetricRows, metric_named
from medtune.evaluation.power import (
    CORRELATION,
    MEDQUAD_DEVIATIONS,
    detectable_by_pilot,
    detectable_by_table,
    sampled_groups,
)
from medtune.evaluation.significance import Subsamples, detectable_difference

ROWS = 4000
GROUPS = [f"topic {row // 2}" for row in range(ROWS)]


def measured(values: np.ndarray) -> MetricRows:
    return MetricRows.of_values(metric_named("rougeL"), values, "one-way")


def test_a_table_scales_with_the_root_of_the_groups() -> None:
    few, many = (detectable_by_table(["rougeL", "nosuch"], groups, tests=3) for groups in (100, 400))
    assert list(few) == ["rougeL"]
    assert few["rougeL"] / many["rougeL"] == pytest.approx(2, rel=0.02)  # and Student's t
    error = MEDQUAD_DEVIATIONS["rougeL"] / 10
    assert few["rougeL"] == detectable_difference(error, 100, tests=3)


def test_every_usual_primary_metric_is_in_the_table() -> None:
    assert {"perplexity", "rougeL", "bertscore_f1"} <= MEDQUAD_DEVIATIONS.keys()


def test_a_pilot_foretells_the_detectable_difference_of_the_comparison() -> None:
    """Two systems that correlate as the pilot supposes."""
    random = np.random.default_rng(0)
    shared, *own = (random.normal(0, 0.1, ROWS) for _ in range(3))
    r = CORRELATION
    before, after = (0.3 + math.sqrt(r) * shared + math.sqrt(1 - r) * one for one in own)
    told = detectable_by_pilot([measured(before)], GROUPS, splits=1000, seed=0, tests=1)
    drawn = Subsamples.draw(GROUPS, splits=1000, seed=0)
    (row,) = compare_measured([measured(before)], [measured(after)], drawn)
    assert told["rougeL"] == pytest.approx(row.detectable, rel=0.1)


@pytest.mark.parametrize("value", [0.0, np.inf])
def test_a_metric_without_a_spread_tells_nothing(value: float) -> None:
    assert detectable_by_pilot([measured(np.full(ROWS, value))], GROUPS, splits=200, seed=0, tests=3) == {}


@pytest.mark.parametrize(("size", "sample"), [(1, 50), (5, 100), (20, 300)])
def test_a_samples_groups_are_those_of_a_simulation(size: int, sample: int) -> None:
    random = np.random.default_rng(0)
    groups = np.arange(600) // size
    drawn = [np.unique(random.choice(groups, sample, replace=False), return_counts=True)[1] for _ in range(400)]
    simulated = sample**2 / np.mean([float((sizes**2).sum()) for sizes in drawn])
    assert sampled_groups(600 / size, 600, sample) == pytest.approx(simulated, rel=0.02)
