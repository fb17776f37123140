"""Every metric of the contract over one model's predictions: rows first, then the value that the rows determine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medtune.errors import ConfigError, DataError
from medtune.evaluation.bertscore import Encoder, bertscore_f1, bertscore_signature
from medtune.evaluation.bleu import bleu_from_rows, bleu_rows, bleu_signature
from medtune.evaluation.exact_match import EXACT_MATCH_SIGNATURE, exact_match_rows
from medtune.evaluation.perplexity import PERPLEXITY_SIGNATURE, perplexity_from_rows, perplexity_rows
from medtune.evaluation.rouge import ROUGE_METRICS, rouge_f1, rouge_signature
from medtune.records import Prediction, Score

METRICS = ("bleu", *ROUGE_METRICS, "bertscore_f1", "exact_match", "perplexity")

_BERTSCORE_BATCH_SIZE = 64  # bert-score's own default; it moves no value beyond float noise


@dataclass(frozen=True, slots=True)
class MetricRows:
    """One metric's per-row statistics, shape (n, k): all that its value, or a bootstrap of it, depends on."""

    metric: str
    rows: NDArray[np.float64]
    signature: str

    def value(self) -> float:
        """Return the metric over these rows. Raises DataError if perplexity finds no reference token."""
        return value_from_rows(self.metric, self.rows)


def value_from_rows(metric: str, rows: NDArray[np.float64]) -> float:
    """Return `metric` over `rows`: scored once from summed counts for BLEU and perplexity, else the mean of the rows.

    `rows` may be any resample of what `measure_rows` gave. Raises DataError if perplexity finds no reference token.
    """
    if metric == "bleu":
        return bleu_from_rows(rows)
    if metric == "perplexity":
        return perplexity_from_rows(rows)
    return float(rows.mean())


def score_predictions(
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    *,
    encoder: Encoder | None,
    device: str = "cpu",
    caps: str,
    precision: str = "",
) -> dict[str, Score]:
    """Score one model's predictions under every metric named, in the order named.

    `encoder` is for BERTScore alone. `caps` says how answers were cut (`max_new_tokens:512|decoding:greedy`) and joins
    the signature of each metric that reads them; `precision` (`model:nf4|dtype:float16`) joins every one. Raises
    DataError if there is nothing to score, ConfigError for an unknown metric or a missing encoder.
    """
    measured = measure_rows(predictions, metrics, encoder=encoder, device=device, caps=caps, precision=precision)
    return {
        metric: Score(value=rows.value(), n=len(predictions), signature=rows.signature)
        for metric, rows in measured.items()
    }


def measure_rows(
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    *,
    encoder: Encoder | None,
    device: str = "cpu",
    caps: str,
    precision: str = "",
) -> dict[str, MetricRows]:
    """Measure each prediction under every metric named; `score_predictions` documents arguments and errors."""
    _check_request(predictions, metrics, encoder)
    texts = [row.prediction for row in predictions]
    references = [row.reference for row in predictions]
    # Once for all ROUGE metrics: stemming both texts takes longer than most of the scores.
    rouge = rouge_f1(texts, references, [metric for metric in ROUGE_METRICS if metric in metrics])
    measured: dict[str, MetricRows] = {}
    for metric in metrics:
        if metric == "bleu":
            rows, signature = bleu_rows(texts, references), bleu_signature()
        elif metric in rouge:
            rows, signature = _one_column(rouge[metric]), rouge_signature(metric)
        elif metric == "bertscore_f1" and encoder is not None:
            values = bertscore_f1(texts, references, encoder, device, _BERTSCORE_BATCH_SIZE)
            rows, signature = _one_column(values), bertscore_signature(encoder)
        elif metric == "exact_match":
            rows, signature = _one_column(exact_match_rows(texts, references)), EXACT_MATCH_SIGNATURE
        else:
            rows, signature = perplexity_rows(predictions), PERPLEXITY_SIGNATURE
        # Perplexity reads the reference, which no cap cuts.
        settings = [signature, "" if metric == "perplexity" else caps, precision]
        signature = "|".join(setting for setting in settings if setting)
        measured[metric] = MetricRows(metric, rows, signature)
    return measured


def _check_request(predictions: Sequence[Prediction], metrics: Sequence[str], encoder: Encoder | None) -> None:
    if not predictions:
        raise DataError("there are no predictions to score; the test split or evaluation.max_examples leaves no row")
    if unknown := [metric for metric in metrics if metric not in METRICS]:
        raise ConfigError(f"evaluation.metrics: unknown {', '.join(unknown)}; known are {', '.join(METRICS)}")
    if "bertscore_f1" in metrics and encoder is None:
        raise ConfigError("evaluation.bertscore_model: bertscore_f1 needs an encoder; name one or drop the metric")


def _one_column(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1, 1)
