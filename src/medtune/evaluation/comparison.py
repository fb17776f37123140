"""Two systems side by side on the same rows, with a paired test; refused unless they were measured alike.

Strata are parts of the rows. Their differences carry intervals and no p-values: strata are for looking.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medtune.data.leakage import KIND_NAMES
from medtune.errors import DataError, Problem
from medtune.evaluation.metrics import MetricRows, metric_named
from medtune.evaluation.significance import SIGNIFICANCE_LEVEL, Resamples, holm, rows_needed
from medtune.records import ComparisonRow, Prediction, QAPair, Score, Stratum, StratumMetric, Verdict


def compare_measured(
    baseline: Sequence[MetricRows],
    tuned: Sequence[MetricRows],
    resamples: Resamples,
    names: tuple[str, str] = ("baseline", "tuned model"),
) -> list[ComparisonRow]:
    """Compare both systems metric by metric, in the baseline's order, by a paired bootstrap over the same groups.

    Both have their rows in the same order. p-values are Holm-corrected within each table, and verdicts go by the
    corrected ones. Raises DataError as `require_comparable_scores` does.
    """
    after = {rows.name: rows for rows in tuned}
    require_comparable_scores(
        {rows.name: (rows.signature, len(rows.rows)) for rows in baseline},
        {rows.name: (rows.signature, len(rows.rows)) for rows in tuned},
        names,
    )
    tests = Counter(rows.metric.table for rows in baseline)
    pairs = [_compare_metric(rows, after[rows.name], resamples, tests[rows.metric.table]) for rows in baseline]
    compared: dict[str, ComparisonRow] = {}
    for table in dict.fromkeys(row.table for row in pairs):
        family = [row for row in pairs if row.table == table]
        p_values = [math.nan if row.p_value is None else row.p_value for row in family]
        for row, p in zip(family, holm(p_values), strict=True):
            compared[row.metric] = replace(row, p_adjusted=None if math.isnan(p) else p, verdict=_judge(row, p))
    return [compared[row.metric] for row in pairs]


def require_comparable_scores(
    baseline: Mapping[str, tuple[str, int]], tuned: Mapping[str, tuple[str, int]], names: tuple[str, str]
) -> None:
    """Check signature and n of each metric of two systems called `names`.

    Raises DataError, one line a metric, where a metric is missing on one side or its signature or n differs.
    """
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


def resampled_differences(before: MetricRows, after: MetricRows, resamples: Resamples) -> NDArray[np.float64]:
    """The metric of `after` minus that of `before` in every resample, shape (r,)."""
    with np.errstate(invalid="ignore"):  # inf - inf, of perplexities that overflow
        return after.values(resamples.sums(after.rows)) - before.values(resamples.sums(before.rows))


def _compare_metric(before: MetricRows, after: MetricRows, resamples: Resamples, tests: int) -> ComparisonRow:
    differences = resampled_differences(before, after, resamples)
    baseline, tuned = before.value(), after.value()
    observed = tuned - baseline  # NaN where both are infinite: no number says which is larger
    p_value = resamples.p_value(differences, observed)
    return ComparisonRow(
        metric=before.name,
        baseline=baseline,
        tuned=tuned,
        difference=observed,
        ci95=resamples.interval(differences),
        p_value=None if math.isnan(p_value) else p_value,
        p_adjusted=None,
        verdict="undefined",
        rows_needed=rows_needed(differences, observed, len(before.rows), tests=tests),
        n=len(before.rows),
        groups=resamples.group_count,
        signature=before.signature,
        table=before.metric.table,
    )


def _judge(row: ComparisonRow, p_adjusted: float) -> Verdict:
    if math.isnan(p_adjusted):
        return "undefined"
    if p_adjusted >= SIGNIFICANCE_LEVEL:
        return "not distinguishable"
    return "better" if (row.difference < 0) == metric_named(row.metric).lower_is_better else "worse"


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
    resamples: int,
    seed: int,
) -> list[Stratum]:
    """Every standard metric of both models on each stratum; `groups` are those of all rows."""
    after = {rows.name: rows for rows in tuned}
    compared = []
    for (kind, value), places in strata.items():
        picked = np.asarray(places)
        drawn = Resamples.draw([groups[place] for place in places], resamples=resamples, seed=seed)
        metrics = {
            rows.name: _compare_stratum(rows, after[rows.name], picked, drawn)
            for rows in baseline
            if rows.metric.table == "standard"
        }
        compared.append(Stratum(kind, value, len(places), drawn.group_count, metrics))
    return compared


def _compare_stratum(before: MetricRows, after: MetricRows, picked: np.ndarray, drawn: Resamples) -> StratumMetric:
    before, after = replace(before, rows=before.rows[picked]), replace(after, rows=after.rows[picked])
    baseline, tuned = before.value(), after.value()
    interval = drawn.interval(resampled_differences(before, after, drawn))
    return StratumMetric(baseline, tuned, tuned - baseline, interval)
