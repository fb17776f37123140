"""Intervals and tests from random subsets of the groups, from statistics a row: nothing is scored twice.

Rows of one document or topic are not independent of each other, so whole groups are drawn. Each draw splits the groups
into two parts, every group on either side with probability one half, and a metric is computed on both parts. The values
so found are Hartigan's typical values (1969, "Using subsample values as typical values"): where groups are independent
and each is as likely to lie above the truth as below it by as much, the truth falls between two of the sorted values
with the same probability for each gap, whatever the sizes of the groups and however few they are. For a mean, the
p-value is that of a sign-flip test over groups (Fisher's randomisation test), and the interval holds exactly the
differences which that test does not reject: a verdict and its interval never disagree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from medtune.records import GroupSizes

SIGNIFICANCE_LEVEL = 0.05
POWER = 0.8
# Rounding: values that differ by less than this share of the observed one are equal.
_TOLERANCE = 1e-9

Interval = tuple[float, float]


@dataclass(frozen=True)
class Subsamples:
    """Random splits of the groups into two parts. `first` says which groups are in the first part, shape (s, g).

    `group_of_row` maps rows to groups, shape (n,).
    """

    first: NDArray[np.bool_]
    group_of_row: NDArray[np.intp]

    @classmethod
    def draw(cls, groups: Sequence[str], *, splits: int, seed: int) -> Subsamples:
        """Split the groups at random at most `splits` times; in every possible way where there are no more than that.

        An empty name is a group of one row.
        """
        names = [group or f"\0row {row}" for row, group in enumerate(groups)]
        # Numbered as they come, not by name: how a group is called must not move an interval.
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        group_of_row = np.array([numbers[name] for name in names], dtype=np.intp)
        if 2 ** (len(numbers) - 1) <= splits + 1:
            # The last group stays in the second part: exchanging the parts makes no other split.
            every = np.arange(1, 2 ** (len(numbers) - 1))
            first = (every[:, None] >> np.arange(len(numbers))) & 1 > 0
        else:
            first = np.random.default_rng(seed).random((splits, len(numbers))) < 0.5
            first = first[first.any(axis=1) & ~first.all(axis=1)]  # a part without groups has no value
        return cls(first, group_of_row)

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return int(self.first.shape[1])

    @cached_property
    def effective_groups(self) -> float:
        """`effective_groups` of the rows' groups."""
        return effective_groups(np.bincount(self.group_of_row))

    @property
    def splits(self) -> int:
        """Number of splits, without the one that leaves all groups together."""
        return len(self.first)

    def sums(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Column sums, shape (2 s, k), of `rows`, shape (n, k): of the s first parts, then of the others."""
        totals = np.zeros((self.group_count, rows.shape[1]))
        np.add.at(totals, self.group_of_row, rows)
        # A loss of inf would turn the zeros of parts without it into NaN.
        with np.errstate(invalid="ignore"):
            return np.concatenate([part.astype(np.float64) @ totals for part in (self.first, ~self.first)])

    def interval(self, values: NDArray[np.float64], confidence: float = 0.95) -> Interval | None:
        """The interval of a metric whose values on the parts are `values`, shape (2 s,).

        None where the groups are too few for that confidence, or where a value is no finite number.
        """
        # As many of the 1 + s ways to flip signs may lie beyond an end as the error allows; no flip is one of them.
        beyond = math.floor((1 - confidence) * (1 + self.splits) + _TOLERANCE)
        if beyond < 1 or not np.isfinite(values).all():
            return None
        pairs = values.reshape(2, -1)
        return float(np.sort(pairs.min(axis=0))[beyond - 1]), float(np.sort(pairs.max(axis=0))[-beyond])

    def p_value(self, differences: NDArray[np.float64], observed: float) -> float:
        """Two-sided p of no difference, from the differences on the parts, shape (2 s,), and that on all rows.

        The share of splits, the one that leaves all groups together included (Phipson and Smyth, 2010), of which a part
        shows no difference or one of the other sign. NaN for a single group or where a value is no finite number.
        """
        if self.group_count < 2 or not (np.isfinite(differences).all() and math.isfinite(observed)):
            return math.nan
        towards_zero = (differences * math.copysign(1.0, observed)).reshape(2, -1).min(axis=0)
        return float((np.count_nonzero(towards_zero <= _TOLERANCE * abs(observed)) + 1) / (self.splits + 1))

    def standard_error(self, differences: NDArray[np.float64]) -> float:
        """Standard error of a difference, from half the distance of both parts' values; NaN where it has none."""
        if self.splits < 2 or not np.isfinite(differences).all():
            return math.nan
        first, second = differences.reshape(2, -1)
        return float(np.sqrt(np.mean(((first - second) / 2) ** 2)))


def effective_groups(sizes: NDArray[np.intp]) -> float:
    """(Σ n)² / Σ n² of group sizes n: as many groups of equal size would say as much."""
    return float(sizes.sum() ** 2 / max(1, (sizes**2).sum()))


def group_sizes(groups: Sequence[str], questions: Sequence[str] = ()) -> GroupSizes:
    """Count the groups of some rows, with these `questions` if any; an empty name is a group of one row."""
    counts = Counter(group for group in groups if group)
    alone = sum(not group for group in groups)
    largest, size = counts.most_common(1)[0] if counts else ("", min(1, alone))
    sizes = np.array([*counts.values(), *([1] * alone)], dtype=np.intp)
    return GroupSizes(
        groups=len(counts) + alone,
        effective=effective_groups(sizes),
        largest=largest,
        largest_share=size / max(1, len(groups)),
        largest_question=questions[list(groups).index(largest)] if questions and largest else "",
    )


def fewest_groups(tests: int) -> int:
    """The number of groups from which on a sign-flip test can be significant after correction for `tests` tests.

    Over g groups it has no p-value below 2 / 2**g.
    """
    return math.ceil(math.log2(2 * max(1, tests) / SIGNIFICANCE_LEVEL))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979) for many tests at once, in the order given; NaN counts as no test."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """The level at which Holm's procedure decides on each test, in the order given; NaN for what is no test.

    The smallest p meets 0.05 / m, the next 0.05 / (m - 1) and so on; from the first that is not significant on, all
    meet that one's level. An interval of confidence 1 - level leaves out zero exactly where Holm rejects.
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    levels = [math.nan] * len(p_values)
    level = SIGNIFICANCE_LEVEL
    for place, i in enumerate(order):
        if place == 0 or levels[order[place - 1]] >= p_values[order[place - 1]]:
            level = SIGNIFICANCE_LEVEL / (len(order) - place)
        levels[i] = level
    return levels


def detectable_difference(error: float, effective_groups: float, *, tests: int = 1) -> float | None:
    """The smallest true difference that a test with this standard error finds with 80 % power.

    At the level of Holm's first and strictest step over `tests` tests. From Student's t with a degree of freedom less
    than there are effective groups; None where there is no error to go by.
    """
    freedom = effective_groups - 1
    if not (math.isfinite(error) and freedom > 0):
        return None
    reach = float(stdtrit(freedom, 1 - SIGNIFICANCE_LEVEL / (2 * tests)) + stdtrit(freedom, POWER))
    return reach * error


def rows_needed(detectable: float | None, observed: float, rows: int) -> int | None:
    """Rows at which a true difference of the size observed would be found with 80 % power.

    A standard error falls with the root of the rows, groups being as large as here. None where no difference was
    observed, or where `detectable`, the smallest difference that `rows` rows can show, is unknown.
    """
    if detectable is None or not detectable > 0 or not math.isfinite(observed) or observed == 0:
        return None
    return math.ceil(rows * (detectable / abs(observed)) ** 2)
