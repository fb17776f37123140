"""Perplexity of the reference answers: exp of nats per token, summed over all rows before the division."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medtune.errors import DataError
from medtune.records import Prediction

PERPLEXITY_SIGNATURE = "perplexity:answer+end-token|aggregate:token"


def perplexity_rows(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """Return shape (n, 2): each row's summed negative log-likelihood in nats, and its number of tokens."""
    losses = [(row.reference_nll, row.reference_tokens) for row in predictions]
    return np.array(losses, dtype=np.float64).reshape(-1, 2)


def perplexity_from_rows(rows: NDArray[np.float64]) -> float:
    """Return exp(sum of nats / sum of tokens); inf where that overflows a float, NaN where a loss is NaN.

    A mean of row perplexities would let the shortest answers rule. Raises DataError if no row has a token.
    """
    nll, tokens = (float(total) for total in rows.sum(axis=0))
    if tokens <= 0:
        raise DataError("perplexity: the reference answers hold no tokens; check that they are not empty")
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf
