"""How often the paired test errs, and how often its intervals hold the truth, in worlds whose truth is known.

`python benchmarks/calibration.py [--worlds 1000]` prints, for each kind of group sizes and of scores and for each
number of groups, the share of worlds without a difference in which the test finds one at 0.05, and the share whose
interval holds zero: once for the paired bootstrap over groups of medtune 0.1.0, once for the test of today.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.significance import SIGNIFICANCE_LEVEL, Subsamples

Numbers = NDArray[np.float64]

GROUPS = (8, 15, 30, 100, 350)
SPLITS = 1000
# Splits that all worlds shared would tilt the rates together.
_WORLDS_A_DRAW = 100


def _even(count: int, generator: np.random.Generator) -> Numbers:
    return np.full(count, 4.0)


def _uneven(count: int, generator: np.random.Generator) -> Numbers:
    return generator.integers(1, 12, count).astype(np.float64)


def _dominated(count: int, generator: np.random.Generator) -> Numbers:
    """Four rows a group, but for one group that holds 30 % of all rows."""
    sizes = _even(count, generator)
    sizes[0] = np.round(0.3 / 0.7 * sizes[1:].sum())
    return sizes


def _pareto(count: int, generator: np.random.Generator) -> Numbers:
    return np.ceil(generator.pareto(1.1, count) + 1).clip(max=400)


SIZES: dict[str, Callable[[int, np.random.Generator], Numbers]] = {
    "even": _even, "uneven": _uneven, "dominated": _dominated, "Pareto": _pareto,
}  # fmt: skip


def _normal(shape: tuple[int, ...], generator: np.random.Generator) -> Numbers:
    return generator.normal(size=shape)


def _heavy_tailed(shape: tuple[int, ...], generator: np.random.Generator) -> Numbers:
    return generator.standard_t(2, size=shape)


def _skewed_scores(shape: tuple[int, ...], generator: np.random.Generator) -> Numbers:
    """Both systems' scores are skewed alike, so that their differences are not."""
    return np.asarray(generator.lognormal(size=shape) - generator.lognormal(size=shape))


def _skewed_differences(shape: tuple[int, ...], generator: np.random.Generator) -> Numbers:
    """Much better on a few topics and a little worse on most: systems with a mean of zero that cannot be swapped."""
    return generator.exponential(size=shape) - 1


# Those in which either system might as well have been the other: there the test's level is exact.
EXCHANGEABLE: dict[str, Callable[[tuple[int, ...], np.random.Generator], Numbers]] = {
    "normal": _normal, "heavy-tailed": _heavy_tailed, "skewed scores": _skewed_scores,
}  # fmt: skip
SCORES = EXCHANGEABLE | {"skewed differences": _skewed_differences}


@dataclass(frozen=True)
class Worlds:
    """Sums of w worlds by group, shapes (g,) and (w, g): rows, and differences whose true mean is zero.

    Differences of a group's rows have half their spread in common.
    """

    sizes: Numbers
    differences: Numbers

    @classmethod
    def draw(cls, sizes: str, scores: str, groups: int, worlds: int, seed: int = 0) -> "Worlds":
        generator = np.random.default_rng([seed, groups, list(SIZES).index(sizes), list(SCORES).index(scores)])
        rows = SIZES[sizes](groups, generator)
        of_group = SCORES[scores]((worlds, groups), generator)
        of_rows = np.add.reduceat(SCORES[scores]((worlds, int(rows.sum())), generator), _starts(rows), axis=1)
        return cls(rows, 0.7 * rows * of_group + of_rows)


def _starts(sizes: Numbers) -> NDArray[np.intp]:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)


Tested = list[tuple[float, tuple[float, float] | None]]


@dataclass(frozen=True)
class Rates:
    """Shares of worlds: how many the test calls different, and how many have zero in their 95 % interval."""

    rejected: float
    covered: float


def rates(worlds: Worlds, test: Callable[[Worlds, int], Tested]) -> Rates:
    """Run `test`, which gives p and interval of each world, a hundred worlds at a time, each time with another seed."""
    found: Tested = []
    for start in range(0, len(worlds.differences), _WORLDS_A_DRAW):
        found += test(Worlds(worlds.sizes, worlds.differences[start : start + _WORLDS_A_DRAW]), start)
    rejected = [p <= SIGNIFICANCE_LEVEL for p, _ in found]
    covered = [interval is None or interval[0] <= 0 <= interval[1] for _, interval in found]
    return Rates(float(np.mean(rejected)), float(np.mean(covered)))


def decide_by_subsamples(worlds: Worlds, seed: int) -> Tested:
    """The test of today."""
    drawn = Subsamples.draw([f"group {number}" for number in range(len(worlds.sizes))], splits=SPLITS, seed=seed)
    sums = drawn.sums(np.column_stack([worlds.sizes, *worlds.differences]))
    values = sums[:, 1:] / sums[:, :1]
    observed = worlds.differences.sum(axis=1) / worlds.sizes.sum()
    return [
        (drawn.p_value(of_parts, float(of_all)), drawn.interval(of_parts))
        for of_parts, of_all in zip(values.T, observed, strict=True)
    ]


def decide_by_bootstrap(worlds: Worlds, seed: int) -> Tested:
    """The test of medtune 0.1.0: groups drawn with replacement, differences shifted to a mean of zero."""
    count = len(worlds.sizes)
    picked = np.random.default_rng(seed).choice(count, size=(SPLITS, count))
    weights = np.stack([np.bincount(row, minlength=count) for row in picked]).astype(np.float64)
    values = (weights @ worlds.differences.T) / (weights @ worlds.sizes)[:, None]
    observed = worlds.differences.sum(axis=1) / worlds.sizes.sum()
    as_far = np.count_nonzero(np.abs(values - values.mean(axis=0)) >= np.abs(observed), axis=0)
    lows, highs = np.quantile(values, [0.025, 0.975], axis=0)
    return [
        ((far + 1) / (SPLITS + 1), (float(low), float(high)))
        for far, low, high in zip(as_far, lows, highs, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=1000)
    count = parser.parse_args().worlds
    print(f"{count} worlds a cell; two simulation errors of 0.05 are {2 * (0.05 * 0.95 / count) ** 0.5:.3f}")
    print("| sizes | scores | groups | found, 0.1.0 | found | covered, 0.1.0 | covered |")
    print("| :-- | :-- | --: | --: | --: | --: | --: |")
    for sizes in SIZES:
        for scores in SCORES:
            for groups in GROUPS:
                worlds = Worlds.draw(sizes, scores, groups, count)
                before, now = (rates(worlds, test) for test in (decide_by_bootstrap, decide_by_subsamples))
                cells = [before.rejected, now.rejected, before.covered, now.covered]
                row = [sizes, scores, str(groups), *(f"{cell:.3f}" for cell in cells)]
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
