"""Two systems side by side on the same rows, with a paired test; refused unless they were measured alike.

Strata are parts of the rows. Their differences carry intervals and no p-values: strata are for looking.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medtune.config.evaluation import MOST_PRIMARY, USUAL_PRIMARY
from medtune.data.leakage import KIND_NAMES
from medtune.errors import DataError, Problem
from medtune.evaluation.metrics import MetricRows
from medtune.evaluation.significance import (
    SIGNIFICANCE_LEVEL,
    Subsamples,
    detectable_difference,
    fewest_groups,
    holm,
    holm_levels,
    rows_needed,
)
from medtune.records import ComparisonRow, Prediction, QAPair, Score, Stratum, StratumMetric, Verdict

# Where a recipe names no primary metrics: one of likelihood, one of words, one of meaning.
_USUAL = (*USUAL_PRIMARY, "bits_per_byte")


def primary_metrics(metrics: Sequence[str], named: Sequence[str] | None = None) -> tuple[str, ...]:
    """Those of `metrics` on which a verdict rests: the ones `named`, else the usual ones, else the first three."""
    found = tuple(name for name in (_USUAL if named is None else named) if name in metrics)
    return found or tuple(metrics[:MOST_PRIMARY])


def compare_measured(
    baseline: Sequence[MetricRows],
    tuned: Sequence[MetricRows],
    subsamples: Subsamples,
    names: tuple[str, str] = ("baseline", "tuned model"),
    *,
    primary: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
) -> list[ComparisonRow]:
    """Compare both systems metric by metric, in the baseline's order, by a sign-flip test over the same groups.

    Both have their rows in the same order. The verdict rests on the metrics in `primary` (`primary_metrics` says which
    if it is None): their p-values are Holm-corrected, and their intervals are as wide as the correction asks. All other
    rows are descriptive. `margins` replaces the metrics' own margins of equivalence. Raises DataError as
    `require_comparable_scores` does.
    """
    after = {rows.name: rows for rows in tuned}
    require_comparable_scores(
        {rows.name: (rows.signature, len(rows.rows)) for rows in baseline},
        {rows.name: (rows.signature, len(rows.rows)) for rows in tuned},
        names,
    )
    # A companion says what its metric says. Without it, where tokenizers differ, it speaks for both.
    families = [rows.name for rows in baseline if rows.metric.companion_of not in {other.name for other in baseline}]
    tested = primary_metrics(families, primary)
    margins = margins or {}
    pairs = [_Pair(rows, after[rows.name], subsamples, margins.get(rows.name, rows.metric.margin)) for rows in baseline]
    p_values = [pair.p_value if pair.name in tested else math.nan for pair in pairs]
    return [
        pair.judged(p, adjusted, level, len(tested)) if pair.name in tested else pair.described()
        for pair, p, adjusted, level in zip(pairs, p_values, holm(p_values), holm_levels(p_values), strict=True)
    ]


class _Pair:
    """One metric of both systems: their values, and their differences on all parts."""

    def __init__(self, before: MetricRows, after: MetricRows, subsamples: Subsamples, margin: float | None) -> None:
        self.name, self._rows, self._subsamples, self._margin = before.name, before, subsamples, margin
        self._differences = differences_of_parts(before, after, subsamples)
        self._baseline, self._tuned = before.value(), after.value()
        # NaN where both are infinite: no number says which is larger.
        self._observed = self._tuned - self._baseline
        self.p_value = subsamples.p_value(self._differences, self._observed)

    def described(self, tests: int = 1) -> ComparisonRow:
        """The row of a metric that is not tested."""
        rows, subsamples = self._rows, self._subsamples
        error = subsamples.standard_error(self._differences)
        detectable = detectable_difference(error, subsamples.effective_groups, tests=tests)
        ci95 = subsamples.interval(self._differences)
        return ComparisonRow(
            metric=self.name,
            baseline=self._baseline,
            tuned=self._tuned,
            difference=self._observed,
            ci95=ci95,
            p_value=None if math.isnan(self.p_value) else self.p_value,
            p_adjusted=None,
            verdict="descriptive",
            rows_needed=rows_needed(detectable, self._observed, len(rows.rows)),
            n=len(rows.rows),
            groups=subsamples.group_count,
            signature=rows.signature,
            table=rows.metric.table,
            interval=ci95,
            detectable=detectable,
            margin=self._margin,
        )

    def judged(self, p: float, adjusted: float, level: float, tests: int) -> ComparisonRow:
        """The row of a primary metric, one of `tests`: Holm's procedure decides on it at `level`."""
        described = self.described(tests)
        if math.isnan(p):
            return replace(described, verdict="undefined", interval=None)
        return replace(
            described,
            p_adjusted=adjusted,
            interval=self._subsamples.interval(self._differences, 1 - level),
            confidence=1 - level,
            verdict=self._judge(p <= level, tests),
        )

    def _judge(self, is_significant: bool, tests: int) -> Verdict:
        if self._subsamples.group_count < fewest_groups(tests):
            return "too few groups"
        if is_significant:
            return "better" if (self._observed < 0) == self._rows.metric.lower_is_better else "worse"
        # Two one-sided tests, each at a level that holds for all primary metrics together.
        inner = self._subsamples.interval(self._differences, 1 - 2 * SIGNIFICANCE_LEVEL / tests)
        margin = self._margin
        is_within = inner is not None and margin is not None and -margin < inner[0] and inner[1] < margin
        return "equivalent" if is_within else "cannot tell"


def require_comparable_scores(
    baseline: Mapping[str, tuple[str, int]], tuned: Mapping[str, tuple[str, int]], names: tuple[str, str]
) -> None:
    """Check signature and n of each metric of two systems called `names`.

    Raises DataError, one line a metric, where a metric is missing on one side or its signature or n differs; one line
    in all where the answers were written by different engines.
    """
    for metric in baseline.keys() & tuned.keys():
        before, after = _engine(baseline[metric][0]), _engine(tuned[metric][0])
        if before != after:
            problem = f"{before} wrote the answers of {names[0]}, {after} those of {names[1]}: they never compare"
            raise DataError("generation.engine", problem, "evaluate both again with the same engine")
    problems = []
    for metric in [*baseline, *(metric for metric in tuned if metric not in baseline)]:
        if metric not in baseline or metric not in tuned:
            lacking = names[0] if metric not in baseline else names[1]
            problems.append(Problem(metric, f"the {lacking} has no such score", "evaluate both with the same metrics"))
            continue
        (before, before_n), (after, after_n) = baseline[metric], tuned[metric]
        if before != after:
            problem = f"measured in two ways, which never compare; {names[0]} {before}, {names[1]} {after}"
            problems.append(Problem(metric, problem, "evaluate both again with the same settings"))
        elif before_n != after_n:
            problem = f"{names[0]} has {before_n} rows, {names[1]} has {after_n}"
            problems.append(Problem(metric, problem, "evaluate both on the same rows"))
    if problems:
        raise DataError.together(problems)


def _engine(signature: str) -> str:
    """What wrote the answers, by a score's signature."""
    words = (word.partition(":") for word in signature.split("|"))
    return next((value for name, _, value in words if name == "engine"), "medtune")


def require_same_rows(
    baseline: Sequence[Prediction], tuned: Sequence[Prediction], names: tuple[str, str] = ("baseline", "tuned")
) -> None:
    """Raise DataError unless both systems answered the same questions, in one order, against the same references."""
    if len(baseline) != len(tuned):
        fix = "evaluate both on the same rows"
        raise DataError(f"{names[0]} has {len(baseline)} predictions, {names[1]} has {len(tuned)}", fix=fix)
    for before, after in zip(baseline, tuned, strict=True):
        if (before.id, before.question, before.reference) != (after.id, after.question, after.reference):
            raise DataError(
                f"{names[0]} row {before.id} and {names[1]} row {after.id} are compared, but their id, question or "
                "reference differ",
                fix="evaluate both on the same rows",
            )


def common_metrics(measured: Sequence[MetricRows], scores: Mapping[str, Score]) -> list[MetricRows]:
    """Those of `measured` that `scores` has too: an answer that no model wrote has no perplexity."""
    return [rows for rows in measured if rows.name in scores]


def differences_of_parts(before: MetricRows, after: MetricRows, subsamples: Subsamples) -> NDArray[np.float64]:
    """The metric of `after` minus that of `before` on every part of the groups, shape (2 s,)."""
    with np.errstate(invalid="ignore"):  # inf - inf, of perplexities that overflow
        return after.values(subsamples.sums(after.rows)) - before.values(subsamples.sums(before.rows))


def stratify(rows: Sequence[QAPair], leaks: Mapping[str, Collection[str]]) -> dict[tuple[str, str], list[int]]:
    """Places in `rows` by kind and value of stratum: answer, question type, source, leak.

    `leaks` maps a kind of leak to the ids of test rows that it touches. A kind with one value says nothing and is left
    out.
    """
    leaking = {id for ids in leaks.values() for id in ids}
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, row in enumerate(rows):
        places["answer"]["template" if row.template else "not template"].append(place)
        places["question type"][row.qtype or "none given"].append(place)
        places["source"][row.source or "none given"].append(place)
        places["leak"]["leaks" if row.id in leaking else "does not leak"].append(place)
        for kind, ids in leaks.items():
            if row.id in ids:
                places["leak"][f"leaks by {KIND_NAMES[kind]}"].append(place)
    return {
        (kind, value): values[value] for kind, values in places.items() if len(values) > 1 for value in sorted(values)
    }


def compare_strata(
    strata: Mapping[tuple[str, str], Sequence[int]],
    groups: Sequence[str],
    baseline: Sequence[MetricRows],
    tuned: Sequence[MetricRows],
    *,
    splits: int,
    seed: int,
) -> list[Stratum]:
    """Every standard metric of both models on each stratum; `groups` are those of all rows."""
    after = {rows.name: rows for rows in tuned}
    compared = []
    for (kind, value), places in strata.items():
        picked = np.asarray(places)
        drawn = Subsamples.draw([groups[place] for place in places], splits=splits, seed=seed)
        metrics = {
            rows.name: _compare_stratum(rows, after[rows.name], picked, drawn)
            for rows in baseline
            if rows.metric.table == "standard"
        }
        compared.append(Stratum(kind, value, len(places), drawn.group_count, metrics))
    return compared


def _compare_stratum(before: MetricRows, after: MetricRows, picked: np.ndarray, drawn: Subsamples) -> StratumMetric:
    before, after = replace(before, rows=before.rows[picked]), replace(after, rows=after.rows[picked])
    baseline, tuned = before.value(), after.value()
    interval = drawn.interval(differences_of_parts(before, after, drawn))
    return StratumMetric(baseline, tuned, tuned - baseline, interval)
