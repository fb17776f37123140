from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from medtune.errors import DataError
from medtune.evaluation.perplexity import perplexity_from_rows, perplexity_rows
from medtune.records import Prediction

PredictionFactory = Callable[..., Prediction]


def test_sums_before_it_divides(make_prediction: PredictionFactory) -> None:
    rows = perplexity_rows(
        [
            make_prediction(reference_nll=2.0, reference_tokens=1),
            make_prediction(reference_nll=9.0, reference_tokens=9),
        ]
    )
    assert perplexity_from_rows(rows) == pytest.approx(math.exp(1.1))
    assert perplexity_from_rows(rows) != pytest.approx(math.exp((2 + 1) / 2))  # the mean of row losses
    assert perplexity_from_rows(rows) != pytest.approx((math.exp(2) + math.exp(1)) / 2)  # of row perplexities
    assert perplexity_from_rows(rows[[1, 1]]) == pytest.approx(math.e)


@pytest.mark.parametrize(("nll", "value"), [(0.0, 1.0), (1e6, math.inf), (math.inf, math.inf)])
def test_extremes(nll: float, value: float) -> None:
    assert perplexity_from_rows(np.array([[nll, 1.0]])) == value


def test_not_a_number_stays_one() -> None:
    assert math.isnan(perplexity_from_rows(np.array([[math.nan, 3.0], [1.0, 1.0]])))


def test_no_tokens_is_a_data_error(make_prediction: PredictionFactory) -> None:
    for predictions in ([], [make_prediction(reference_nll=0.0, reference_tokens=0)]):
        with pytest.raises(DataError, match="no tokens"):
            perplexity_from_rows(perplexity_rows(predictions))
