"""An interval and a test for ratings, from random splits of the groups: rows of one group depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medtune.evaluation.significance import Interval, Subsamples

_SPLITS = 10_000
_SEED = 0


def mean_interval(values: Sequence[float], groups: Sequence[str], scale: Interval) -> Interval:
    """Return the 95 % interval of the mean of `values`; the whole `scale` where there are fewer than six groups.

    The mean of a part is its sum over its own count: groups differ in size.
    """
    subsamples = Subsamples.draw(groups, splits=_SPLITS, seed=_SEED)
    return subsamples.interval(_means(values, subsamples)) or scale


def sign_flip_p_value(outcomes: Sequence[int], groups: Sequence[str]) -> float:
    """Return the two-sided p-value of a mean of zero when each group's sum is as likely to be positive as negative.

    That is what random sides make true of two models that raters cannot tell apart (Fisher's randomisation test). A
    single group can show nothing: 1.
    """
    subsamples = Subsamples.draw(groups, splits=_SPLITS, seed=_SEED)
    if subsamples.group_count < 2:
        return 1.0
    return subsamples.p_value(_means(outcomes, subsamples), float(np.mean(outcomes)))


def _means(values: Sequence[float], subsamples: Subsamples) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    sums, counts = subsamples.sums(np.column_stack([values, np.ones(len(values))])).T
    return np.asarray(sums / counts)
