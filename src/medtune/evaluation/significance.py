"""Intervals and tests by resampling groups of rows, from statistics a row: nothing is scored twice.

Rows of one document or topic are not independent of each other, so a bootstrap draws whole groups (a cluster
bootstrap; Davison and Hinkley 1997, section 3.8). The paired test is Koehn's (2004, "Statistical Significance Tests for
Machine Translation Evaluation") with the resampled differences shifted to a mean of zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

SIGNIFICANCE_LEVEL = 0.05
POWER = 0.8
# Fewer independent units than this make a bootstrap's intervals too narrow to lean on.
FEW_GROUPS = 30

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each resample draws each group: shape (r, g); `group_of_row` maps rows to groups, shape (n,)."""

    weights: NDArray[np.float64]
    group_of_row: NDArray[np.intp]

    @classmethod
    def draw(cls, groups: Sequence[str], *, resamples: int, seed: int) -> Resamples:
        """Draw with replacement as many groups as there are. An empty name is a group of one row.

        With one row a group these are the draws that sacrebleu makes under the same seed.
        """
        names = [group or f"\0row {row}" for row, group in enumerate(groups)]
        # Numbered as they come, not by name: how a group is called must not move an interval.
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        generator = np.random.default_rng(seed)
        drawn = generator.choice(len(numbers), size=(resamples, len(numbers)), replace=True)
        weights = np.zeros((resamples, len(numbers)))
        np.add.at(weights, (np.arange(resamples)[:, None], drawn), 1.0)
        return cls(weights, np.array([numbers[name] for name in names], dtype=np.intp))

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return int(self.weights.shape[1])

    def sums(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Column sums, shape (r, k), of every resample of `rows`, shape (n, k)."""
        totals = np.zeros((self.group_count, rows.shape[1]))
        np.add.at(totals, self.group_of_row, rows)
        # A loss of inf would turn the zero weights of resamples without it into NaN.
        with np.errstate(invalid="ignore"):
            return np.asarray(self.weights @ totals)

    def interval(self, values: NDArray[np.float64]) -> Interval | None:
        """The 95 % interval of a metric's resampled values; none of a single group, which has no spread to show."""
        return percentile_interval(values) if self.group_count > 1 else None

    def p_value(self, differences: NDArray[np.float64], observed: float) -> float:
        """`paired_p_value` of a metric's resampled differences; NaN for a single group, whose resamples are all one."""
        return paired_p_value(differences, observed) if self.group_count > 1 else math.nan


def percentile_interval(values: NDArray[np.float64], confidence: float = 0.95) -> Interval | None:
    """The percentile interval of resampled values; none where one of them is no finite number."""
    if not np.isfinite(values).all():
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def paired_p_value(differences: NDArray[np.float64], observed: float) -> float:
    """Two-sided p of a paired bootstrap: how often chance alone moves as far from zero as `observed`.

    `differences` are those of the resamples. Shifted to a mean of zero they show the differences that sampling makes
    where there is none. sacrebleu shifts absolute differences instead, which makes its test one-sided: under no
    difference it rejects about one time in ten at 0.05.
    """
    if not (np.isfinite(differences).all() and math.isfinite(observed)):
        return math.nan
    shifted = np.abs(differences - differences.mean())
    # A billionth apart is rounding: a system compared with itself must come out at 1.
    as_far = np.count_nonzero(shifted >= abs(observed) * (1 - 1e-9))
    return float((as_far + 1) / (len(differences) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) for many tests at once, in the order given; NaN counts as no test."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def rows_needed(differences: NDArray[np.float64], observed: float, rows: int, *, tests: int = 1) -> int | None:
    """Rows at which a true difference of the size observed would be found with 80 % power.

    At the level of Holm's first and strictest step over `tests` tests, so that a difference that this many rows did not
    establish always takes more. From the normal approximation: the standard error falls with the root of the rows,
    groups being as large as here. None where no difference was observed.
    """
    error = float(np.std(differences, ddof=1)) if np.isfinite(differences).all() else math.nan
    if not math.isfinite(observed) or observed == 0 or not error > 0:
        return None
    reach = norm.ppf(1 - SIGNIFICANCE_LEVEL / (2 * tests)) + norm.ppf(POWER)
    return math.ceil(rows * float(reach * error / abs(observed)) ** 2)
