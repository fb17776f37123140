"""Two sets of scores side by side, refused unless they were measured alike on the same rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from medtune.errors import DataError
from medtune.records import ComparisonRow, Prediction, Score

Verdict = Literal["better", "worse", "equal", "undefined"]


def compare_scores(baseline: Mapping[str, Score], tuned: Mapping[str, Score]) -> list[ComparisonRow]:
    """Pair the scores of both models, in the baseline's order.

    Raises DataError, one line a metric, where a metric is missing on one side or its signature or n differs.
    """
    problems = []
    for metric in [*baseline, *(metric for metric in tuned if metric not in baseline)]:
        if metric not in baseline or metric not in tuned:
            lacking = "baseline" if metric not in baseline else "tuned model"
            problems.append(f"{metric}: the {lacking} has no such score; evaluate both with the same metrics")
        elif (before := baseline[metric]).signature != (after := tuned[metric]).signature:
            problems.append(
                f"{metric}: measured in two ways, which never compare; baseline {before.signature}, "
                f"tuned {after.signature}; evaluate both again with the same settings"
            )
        elif before.n != after.n:
            problems.append(
                f"{metric}: baseline has {before.n} rows, tuned has {after.n}; evaluate both on the same rows"
            )
    if problems:
        raise DataError("\n".join(problems))
    return [_pair(metric, score, tuned[metric]) for metric, score in baseline.items()]


def require_same_rows(baseline: Sequence[Prediction], tuned: Sequence[Prediction]) -> None:
    """Raise DataError unless both models answered the same questions, in one order, against the same references."""
    if len(baseline) != len(tuned):
        raise DataError(
            f"baseline has {len(baseline)} predictions, tuned has {len(tuned)}; evaluate both on the same rows"
        )
    for before, after in zip(baseline, tuned, strict=True):
        if (before.id, before.question, before.reference) != (after.id, after.question, after.reference):
            raise DataError(
                f"baseline row {before.id} stands beside tuned row {after.id}, and id, question or reference differ; "
                "evaluate both on the same rows"
            )


def lower_is_better(metric: str) -> bool:
    """Say whether a smaller value of `metric` is the better one: perplexity alone."""
    return metric == "perplexity"


def shown_digits(metric: str) -> int:
    """Return the decimals that `metric` is shown with: 2 for BLEU (0-100) and perplexity, 4 for shares and F1."""
    return 2 if metric in ("bleu", "perplexity") else 4


def judge(row: ComparisonRow) -> Verdict:
    """Say which way a row went, at the digits that are shown; `undefined` where the difference is no number.

    Not a test of significance: the interval is.
    """
    if math.isnan(row.difference):
        return "undefined"
    difference = round(row.difference, shown_digits(row.metric))
    if difference == 0:
        return "equal"
    return "better" if (difference < 0) == lower_is_better(row.metric) else "worse"


def _pair(metric: str, before: Score, after: Score) -> ComparisonRow:
    return ComparisonRow(
        metric=metric,
        baseline=before.value,
        tuned=after.value,
        difference=after.value - before.value,  # NaN where both are infinite: no number says which is larger
        n=before.n,
        signature=before.signature,
    )
