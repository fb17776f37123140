"""Corpus BLEU, 0 to 100, as sacrebleu computes it by default (13a tokens, cased, exponential smoothing)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU, MAX_NGRAM_ORDER, BLEUScore


@dataclass(frozen=True, slots=True)
class BleuParts:
    """What BLEU is the product of: score = brevity penalty * geometric mean of the precisions.

    `precisions` are in percent for 1- to 4-grams, smoothed as they enter the score. Lengths count 13a tokens;
    `length_ratio` is predictions over references, 0 where the references are empty.
    """

    score: float
    precisions: tuple[float, float, float, float]
    brevity_penalty: float
    length_ratio: float
    prediction_length: int
    reference_length: int


def bleu_signature() -> str:
    """Return sacrebleu's own signature for one reference a row and its default settings."""
    return str(BLEU(references=[[""]]).get_signature())


def bleu_rows(predictions: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Count each row's matches: shape (n, 10), whose column sums determine the corpus score.

    Columns: prediction tokens, reference tokens, matched 1- to 4-grams, predicted 1- to 4-grams.
    Raises ValueError if the two lists differ in length.
    """
    metric = BLEU()
    rows = np.zeros((len(predictions), 2 + 2 * MAX_NGRAM_ORDER), dtype=np.float64)
    for row, prediction, reference in zip(rows, predictions, references, strict=True):
        score = metric.corpus_score([prediction], [[reference]])
        row[:] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return rows


def bleu_from_rows(rows: NDArray[np.float64]) -> float:
    """Return corpus BLEU, 0 to 100, of the rows that `bleu_rows` counted, or of any resample of them."""
    return float(_corpus_score(rows).score)


def bleu_parts(rows: NDArray[np.float64]) -> BleuParts:
    """Return what corpus BLEU of these rows is made of."""
    corpus = _corpus_score(rows)
    first, second, third, fourth = (float(precision) for precision in corpus.precisions)
    return BleuParts(
        score=float(corpus.score),
        precisions=(first, second, third, fourth),
        brevity_penalty=float(corpus.bp),
        length_ratio=float(corpus.ratio),
        prediction_length=int(corpus.sys_len),
        reference_length=int(corpus.ref_len),
    )


def _corpus_score(rows: NDArray[np.float64]) -> BLEUScore:
    """Sum the counts, then score once: the mean of row BLEUs is another, undefined quantity."""
    totals = [int(total) for total in rows.sum(axis=0)]
    metric = BLEU()
    return metric.compute_bleu(
        correct=totals[2 : 2 + MAX_NGRAM_ORDER],
        total=totals[2 + MAX_NGRAM_ORDER :],
        sys_len=totals[0],
        ref_len=totals[1],
        smooth_method=metric.smooth_method,
        smooth_value=metric.smooth_value,
        effective_order=metric.effective_order,
        max_ngram_order=metric.max_ngram_order,
    )
