"""An interval and a test for ratings, by resampling groups of rows: rows of one group depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medtune.evaluation.significance import Interval, Resamples, percentile_interval

_RESAMPLES = 10_000
_SEED = 0


def mean_interval(values: Sequence[float], groups: Sequence[str]) -> Interval:
    """Return the 95 % bootstrap interval of the mean of `values`; whole groups are drawn, all their values with them.

    A resample's mean is its sum over its own count: groups differ in size.
    """
    resamples = Resamples.draw(groups, resamples=_RESAMPLES, seed=_SEED)
    sums, counts = resamples.sums(np.column_stack([values, np.ones(len(values))])).T
    interval = percentile_interval(sums / counts)
    assert interval is not None, "ratings are finite"
    return interval


def sign_flip_p_value(outcomes: Sequence[int], groups: Sequence[str]) -> float:
    """Return the two-sided p-value of Σ outcomes when each group's sum is as likely to be positive as negative.

    That is what random sides make true of two models that raters cannot tell apart (Fisher's randomisation test). The
    observed signs count as one of the draws, so that the value is never 0 (Phipson and Smyth, 2010).
    """
    sums: dict[str, int] = {}
    for outcome, group in zip(outcomes, groups, strict=True):
        sums[group] = sums.get(group, 0) + outcome
    by_group = np.array(list(sums.values()))
    signs = np.random.default_rng(_SEED).choice([-1, 1], size=(_RESAMPLES, len(by_group)))
    as_far = np.abs(signs @ by_group) >= abs(by_group.sum())
    return float((as_far.sum() + 1) / (_RESAMPLES + 1))
