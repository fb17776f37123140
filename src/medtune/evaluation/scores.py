"""Every metric over one system's predictions: statistics a row first, then the value that their sums determine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medtune.errors import ConfigError, DataError
from medtune.evaluation import bertscore, bleu, exact_match, perplexity, rouge
from medtune.evaluation.bertscore import Encoder
from medtune.evaluation.significance import Resamples
from medtune.records import MetricTable, Prediction, Score

METRICS = ("bleu", *rouge.ROUGE_METRICS, "bertscore_f1", "exact_match", "perplexity")

# Texts a forward pass; it moves no value beyond float noise. On a CPU bert-score's own default, more to fill a GPU.
_BERTSCORE_BATCH_SIZE, _BERTSCORE_BATCH_SIZE_ON_GPU = 64, 128
_MEAN = ("value", "rows")


@dataclass(frozen=True, slots=True)
class MetricRows:
    """One metric's statistics a row, shape (n, k): their column sums are all that its value depends on.

    Most metrics are a ratio of two sums (a mean: values over rows); BLEU and perplexity have formulas of their own.
    `details` says what the value was made of.
    """

    metric: str
    columns: tuple[str, ...]
    rows: NDArray[np.float64]
    signature: str
    table: MetricTable = "standard"
    details: Mapping[str, Any] = field(default_factory=dict)

    def value(self) -> float:
        """Return the metric over these rows."""
        return float(self.values(self.rows.sum(axis=0, keepdims=True))[0])

    def values(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric, shape (r,), of column sums, shape (r, k), of any r resamples of the rows."""
        return values_from_sums(self.metric, sums)


def values_from_sums(metric: str, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `metric`, shape (r,), of column sums, shape (r, k), of the statistics that `measure_rows` gave."""
    if metric == "bleu":
        return np.array([bleu.bleu_from_sums(row) for row in sums])
    if metric == "compat_bleu":
        return np.array([bleu.bleu_from_sums(row, "none") / 100 for row in sums])
    if metric == "perplexity":
        return np.array([perplexity.perplexity_from_sums(row) for row in sums])
    with np.errstate(divide="ignore", invalid="ignore"):  # a loss of inf or NaN, or a resample of empty references
        return np.asarray(sums[:, 0] / sums[:, 1])


def measure_rows(
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    *,
    encoder: Encoder | None,
    device: str = "cpu",
    caps: str,
    precision: str = "",
) -> list[MetricRows]:
    """Measure each prediction under every metric named, and under what comes with it, standard metrics first.

    Perplexity brings bits per byte; BERTScore its rescaled twin where bert-score ships a baseline; BLEU and ROUGE their
    `compat_` forms, as public write-ups compute them. `encoder` is for BERTScore alone. `caps` says how answers were
    cut (`max_new_tokens:512|decoding:greedy`) and joins the signature of each metric that reads them; `precision`
    (`model:nf4|dtype:float16`) joins every one. Raises DataError if there is nothing to score, ConfigError for an
    unknown metric or a missing encoder.
    """
    _check_request(predictions, metrics, encoder)
    texts, references = [row.prediction for row in predictions], [row.reference for row in predictions]
    # Once for all ROUGE metrics: tokens and stems are most of the work.
    wanted = [metric for metric in rouge.ROUGE_METRICS if metric in metrics]
    stemmed = rouge.rouge_f1(texts, references, wanted)
    measured: list[MetricRows] = []
    for metric in metrics:
        if metric == "bleu":
            counts = bleu.bleu_rows(texts, references)
            measured += _bleu(counts)
        elif metric in stemmed:
            measured.append(_mean(metric, stemmed[metric], rouge.rouge_signature(metric)))
        elif metric == "bertscore_f1" and encoder is not None:
            batch_size = _BERTSCORE_BATCH_SIZE if device == "cpu" else _BERTSCORE_BATCH_SIZE_ON_GPU
            measured += _bertscore(bertscore.bertscore_rows(texts, references, encoder, device, batch_size), encoder)
        elif metric == "exact_match":
            values = exact_match.exact_match_rows(texts, references)
            measured.append(_mean(metric, values, exact_match.EXACT_MATCH_SIGNATURE))
        else:
            measured += _likelihood(predictions)
    for metric, values in rouge.rouge_f1(texts, references, wanted, stemmer=False).items():
        compat = _mean(f"compat_{metric}", values, rouge.rouge_signature(metric, stemmer=False))
        measured.append(replace(compat, table="compat"))
    standard_first = sorted(measured, key=lambda rows: rows.table != "standard")
    return [replace(rows, signature=_signature(rows, caps, precision)) for rows in standard_first]


def score_rows(measured: Sequence[MetricRows], resamples: Resamples) -> dict[str, Score]:
    """The value of every metric with its 95 % interval over `resamples` of the groups of these rows."""
    return {
        rows.metric: Score(
            value=rows.value(),
            n=len(rows.rows),
            signature=rows.signature,
            groups=resamples.group_count,
            ci95=resamples.interval(rows.values(resamples.sums(rows.rows))),
            table=rows.table,
            details=dict(rows.details),
        )
        for rows in measured
    }


def _bleu(counts: NDArray[np.float64]) -> list[MetricRows]:
    sums = counts.sum(axis=0)
    parts, compat_parts = asdict(bleu.bleu_parts(sums)), asdict(bleu.bleu_parts(sums, "none"))
    for details in (parts, compat_parts):
        del details["score"]
        details["precisions"] = [precision / 100 for precision in details["precisions"]]
    compat_signature = bleu.bleu_signature("none") + "|range:0-1"
    return [
        MetricRows("bleu", bleu.BLEU_COLUMNS, counts, bleu.bleu_signature(), "standard", parts),
        MetricRows("compat_bleu", bleu.BLEU_COLUMNS, counts, compat_signature, "compat", compat_parts),
    ]


def _bertscore(scores: bertscore.BertScores, encoder: Encoder) -> list[MetricRows]:
    details = {
        "encoder_limit_tokens": scores.limit,
        "share_of_predictions_cut": scores.cut_predictions,
        "share_of_references_cut": scores.cut_references,
    }
    raw = _mean("bertscore_f1", scores.f1, bertscore.bertscore_signature(encoder))
    measured = [replace(raw, details=details)]
    if (baseline := bertscore.rescaling_baseline(encoder)) is not None:
        rescaled = [(value - baseline) / (1 - baseline) for value in scores.f1]
        signature = bertscore.bertscore_signature(encoder, rescaled=True)
        measured.append(replace(_mean("bertscore_f1_rescaled", rescaled, signature), details={"baseline": baseline}))
    return measured


def _likelihood(predictions: Sequence[Prediction]) -> list[MetricRows]:
    losses = perplexity.perplexity_rows(predictions)
    bits = perplexity.bits_per_byte_rows(predictions, losses)
    return [
        MetricRows("perplexity", perplexity.PERPLEXITY_COLUMNS, losses, perplexity.PERPLEXITY_SIGNATURE),
        MetricRows("bits_per_byte", perplexity.BITS_PER_BYTE_COLUMNS, bits, perplexity.BITS_PER_BYTE_SIGNATURE),
    ]


def _mean(metric: str, values: Sequence[float], signature: str) -> MetricRows:
    column = np.asarray(values, dtype=np.float64)
    return MetricRows(metric, _MEAN, np.column_stack([column, np.ones(len(column))]), signature)


def _signature(rows: MetricRows, caps: str, precision: str) -> str:
    # A likelihood reads the reference, which no cap cuts.
    reads_answers = rows.metric not in ("perplexity", "bits_per_byte")
    settings = [rows.signature, caps if reads_answers else "", precision]
    return "|".join(setting for setting in settings if setting)


def _check_request(predictions: Sequence[Prediction], metrics: Sequence[str], encoder: Encoder | None) -> None:
    if not predictions:
        raise DataError(
            "there are no predictions to score", fix="the test split or evaluation.max_examples leaves no row"
        )
    if unknown := [metric for metric in metrics if metric not in METRICS]:
        raise ConfigError("evaluation.metrics", f"unknown {', '.join(unknown)}", f"known are {', '.join(METRICS)}")
    if "bertscore_f1" in metrics and encoder is None:
        raise ConfigError("evaluation.bertscore_model", "bertscore_f1 needs an encoder", "name one or drop the metric")
