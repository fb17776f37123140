from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from medtune.errors import DataError
from medtune.evaluation.metrics.perplexity import (
    BITS_PER_BYTE_COLUMNS,
    PERPLEXITY_COLUMNS,
    bits_per_byte_rows,
    perplexity_from_sums,
    perplexity_rows,
)
from medtune.records import Prediction

PredictionFactory = Callable[..., Prediction]


def test_sums_before_it_divides(make_prediction: PredictionFactory) -> None:
    rows = perplexity_rows(
        [
            make_prediction(reference_nll=2.0, reference_tokens=1),
            make_prediction(reference_nll=9.0, reference_tokens=9),
        ]
    )
    assert rows.shape == (2, len(PERPLEXITY_COLUMNS))
    value = perplexity_from_sums(rows.sum(axis=0))
    assert value == pytest.approx(math.exp(1.1))
    assert value != pytest.approx(math.exp((2 + 1) / 2))  # the mean of row losses
    assert value != pytest.approx((math.exp(2) + math.exp(1)) / 2)  # of row perplexities
    assert perplexity_from_sums(rows[[1, 1]].sum(axis=0)) == pytest.approx(math.e)


@pytest.mark.parametrize(("nll", "value"), [(0.0, 1.0), (1e6, math.inf), (math.inf, math.inf)])
def test_extremes(nll: float, value: float) -> None:
    assert perplexity_from_sums(np.array([nll, 1.0])) == value


def test_not_a_number_stays_one() -> None:
    assert math.isnan(perplexity_from_sums(np.array([math.nan, 3.0])))


def test_a_resample_without_a_token_has_no_perplexity() -> None:
    assert math.isnan(perplexity_from_sums(np.array([0.0, 0.0])))


def test_no_tokens_is_a_data_error(make_prediction: PredictionFactory) -> None:
    for predictions in ([], [make_prediction(reference_nll=0.0, reference_tokens=0)]):
        with pytest.raises(DataError, match="no tokens"):
            perplexity_rows(predictions)


@pytest.mark.parametrize("lacking", ["reference_nll", "reference_tokens"])
def test_a_missing_loss_names_the_row(make_prediction: PredictionFactory, lacking: str) -> None:
    rows = [make_prediction(), make_prediction(id="row-1", **{lacking: None})]
    with pytest.raises(DataError, match="row row-1: no reference_nll or reference_tokens"):
        perplexity_rows(rows)


def test_bits_per_byte_by_hand(make_prediction: PredictionFactory) -> None:
    """Nats become bits; bytes are those of the answer in UTF-8, where `°` takes two."""
    rows = [make_prediction(reference="38 °C", reference_nll=12 * math.log(2)), make_prediction(reference="abcd")]
    bits = bits_per_byte_rows(rows, perplexity_rows(rows))
    assert bits.shape == (2, len(BITS_PER_BYTE_COLUMNS))
    assert bits[0] == pytest.approx([12, 6])
    assert bits[1] == pytest.approx([4 / math.log(2), 4])


def test_bits_per_byte_do_not_depend_on_the_tokenizer(make_prediction: PredictionFactory) -> None:
    few, many = ([make_prediction(reference_tokens=tokens)] for tokens in (2, 8))
    assert (bits_per_byte_rows(few, perplexity_rows(few)) == bits_per_byte_rows(many, perplexity_rows(many))).all()
    assert (perplexity_rows(few) != perplexity_rows(many)).any()


def test_a_lone_surrogate_is_counted_and_not_refused(make_prediction: PredictionFactory) -> None:
    rows = [make_prediction(reference="a\ud800")]
    assert bits_per_byte_rows(rows, perplexity_rows(rows))[0, 1] == 4
