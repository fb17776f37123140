"""Both models on parts of the test rows. Differences carry intervals and no p-values: strata are for looking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from medtune.data.leakage import KIND_NAMES
from medtune.evaluation.metrics import MetricRows
from medtune.evaluation.significance import Subsamples
from medtune.records import QAPair, Stratum, StratumMetric


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
            rows.name: _compare(rows, after[rows.name], picked, drawn)
            for rows in baseline
            if rows.metric.table == "standard"
        }
        compared.append(Stratum(kind, value, len(places), drawn.group_count, metrics))
    return compared


def _compare(before: MetricRows, after: MetricRows, picked: np.ndarray, drawn: Subsamples) -> StratumMetric:
    before, after = replace(before, rows=before.rows[picked]), replace(after, rows=after.rows[picked])
    with np.errstate(invalid="ignore"):
        differences = after.values(drawn.sums(after.rows)) - before.values(drawn.sums(before.rows))
    baseline, tuned = before.value(), after.value()
    return StratumMetric(baseline, tuned, tuned - baseline, drawn.interval(differences))
