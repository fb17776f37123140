"""The smallest difference that a test set can show, told before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from medtune.evaluation.metrics import MetricRows
from medtune.evaluation.significance import Subsamples, detectable_difference, group_sizes

# Standard deviation of a group's difference, tuned minus baseline, in the metric's units: the standard error of the
# difference times the root of the effective groups. From a model of 16 million weights, tuned for 40 steps, on 110
# questions of MedQuAD that it had not seen; a larger model's answers differ by more or by less. BERTScore's is
# set to ROUGE-L's: in the demo the two were 0.008 each.
MEDQUAD_DEVIATIONS: Mapping[str, float] = {
    "bleu": 7.1, "rouge1": 0.106, "rouge2": 0.100, "rougeL": 0.090, "rougeLsum": 0.104, "bertscore_f1": 0.090,
    "perplexity": 0.64, "bits_per_byte": 0.026,
}  # fmt: skip
# How far the two models' errors on a group go together, at which a pilot of one of them tells of their difference.
# Measured on those answers: 0.3 to 0.6 for overlap, and over 0.99 for likelihood, since both read the same references.
CORRELATION, LIKELIHOOD_CORRELATION = 0.5, 0.98


def detectable_by_table(metrics: Iterable[str], effective: float, *, tests: int) -> dict[str, float]:
    """Metric → the smallest true difference that so many `effective` groups of MedQuAD show with 80 % power.

    Of `tests` primary metrics that are tested together. Metrics without an entry in the table are left out.
    """
    known = {metric: MEDQUAD_DEVIATIONS[metric] for metric in metrics if metric in MEDQUAD_DEVIATIONS}
    errors = {metric: deviation / math.sqrt(effective) for metric, deviation in known.items()}
    return _detectable(errors, effective, tests)


def detectable_by_pilot(
    baseline: Sequence[MetricRows], groups: Sequence[str], *, splits: int, seed: int, tests: int
) -> dict[str, float]:
    """As `detectable_by_table`, from the answers of the baseline alone, which were measured.

    Were the tuned model's values to spread as the baseline's do, with a correlation of r, the difference would have
    sqrt(2 (1 - r)) times the baseline's standard error.
    """
    drawn = Subsamples.draw(groups, splits=splits, seed=seed)
    errors = {}
    for rows in baseline:
        r = CORRELATION if rows.metric.reads_answers else LIKELIHOOD_CORRELATION
        errors[rows.name] = math.sqrt(2 * (1 - r)) * drawn.standard_error(rows.values(drawn.sums(rows.rows)))
    return _detectable(errors, group_sizes(groups).effective, tests)


def sampled_groups(effective: float, rows: int, sample: int) -> float:
    """The effective groups of a random `sample` of `rows` rows that are worth so many `effective` groups.

    Two rows of a sample are of one group as often as two of all rows are: effective groups are n / (1 + (n - 1) s).
    """
    together = max(0.0, (rows / effective - 1) / max(1, rows - 1))
    return sample / (1 + (sample - 1) * together)


def _detectable(errors: Mapping[str, float], effective: float, tests: int) -> dict[str, float]:
    # A metric that never moved, such as exact match at zero, tells nothing of how it will.
    moving = {metric: error for metric, error in errors.items() if error > 0}
    found = {metric: detectable_difference(error, effective, tests=tests) for metric, error in moving.items()}
    return {metric: difference for metric, difference in found.items() if difference is not None}
