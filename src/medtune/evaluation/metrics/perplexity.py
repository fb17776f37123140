"""Likelihood of the reference answers: perplexity a token, and bits a byte, each summed over all rows before dividing.

Bits a byte do not depend on the tokenizer, so that models with different vocabularies compare. A mean of row
perplexities would let the shortest answers dominate.
"""

import math
from collections.abc import Sequence

import numpy as np

from medtune.errors import DataError
from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows, Numbers
from medtune.records import Prediction

PERPLEXITY_SIGNATURE = "perplexity:answer+end-token|aggregate:token"
PERPLEXITY_COLUMNS = ("reference_nll", "reference_tokens")
BITS_PER_BYTE_SIGNATURE = "bits-per-byte:answer+end-token|bytes:utf-8-answer|aggregate:byte"
BITS_PER_BYTE_COLUMNS = ("reference_bits", "reference_bytes")


def perplexity_rows(predictions: Sequence[Prediction]) -> Numbers:
    """Return shape (n, 2): each row's summed negative log-likelihood in nats, and its number of tokens.

    Raises DataError, naming a row, where a loss is missing, or if no row has a token.
    """
    lacking = next((row.id for row in predictions if row.reference_nll is None or row.reference_tokens is None), None)
    if lacking is not None:
        fix = "leave perplexity out of the metrics, or give a model's own predictions.jsonl"
        raise DataError(f"row {lacking}", "no reference_nll or reference_tokens, which perplexity needs", fix)
    rows = np.array([(row.reference_nll, row.reference_tokens) for row in predictions], dtype=np.float64).reshape(-1, 2)
    if rows[:, 1].sum() <= 0:
        raise DataError("perplexity", "the reference answers hold no tokens", "check that they are not empty")
    return rows


def bits_per_byte_rows(predictions: Sequence[Prediction], losses: Numbers) -> Numbers:
    """Return shape (n, 2): each row's bits, from the nats of `perplexity_rows`, and its answer's UTF-8 bytes."""
    sizes = [len(row.reference.encode("utf-8", "surrogatepass")) for row in predictions]
    return np.column_stack([losses[:, 0] / math.log(2), sizes])


def perplexity_from_sums(sums: Numbers) -> float:
    """Return exp(nats / tokens) of summed rows, shape (2,); inf where that overflows.

    NaN where a loss is NaN, or where no row of a resample has a token.
    """
    nll, tokens = (float(total) for total in sums)
    if tokens <= 0:
        return math.nan
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def _measure(answers: Answers, wanted: Sequence[Metric]) -> list[MetricRows]:
    losses = perplexity_rows(answers.predictions)
    bits = bits_per_byte_rows(answers.predictions, losses)
    return [
        MetricRows(PERPLEXITY, losses, PERPLEXITY_SIGNATURE),
        MetricRows(BITS_PER_BYTE, bits, BITS_PER_BYTE_SIGNATURE),
    ]


PERPLEXITY = Metric(
    "perplexity",
    "perplexity",
    _measure,
    PERPLEXITY_COLUMNS,
    lambda sums: np.array([perplexity_from_sums(row) for row in sums]),
    digits=2,
    gloss="how much the references surprise the model",
    lower_is_better=True,
    is_headline=True,
    hub_name="perplexity",
    reads_answers=False,
    counts_tokens=True,
    margin=0.1,
)
BITS_PER_BYTE = Metric(
    "bits_per_byte",
    "bits per byte",
    _measure,
    BITS_PER_BYTE_COLUMNS,
    lower_is_better=True,
    companion_of="perplexity",
    reads_answers=False,
)
LIKELIHOOD_METRICS = (PERPLEXITY, BITS_PER_BYTE)
