from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows, ratio
from medtune.records import Prediction

SHARE = Metric("share", "share", lambda answers, wanted: [])
ROOT = Metric("root", "root", lambda answers, wanted: [], ("squares",), lambda sums: np.sqrt(sums[:, 0]))


def test_a_ratio_for_each_resample() -> None:
    assert ratio(np.array([[3.0, 2.0], [1.0, 4.0]])).tolist() == [1.5, 0.25]


@pytest.mark.filterwarnings("error")
def test_sums_that_have_no_ratio_say_so_without_a_warning() -> None:
    found = ratio(np.array([[math.inf, 2.0], [1.0, 0.0], [0.0, 0.0]]))
    assert found.tolist() == [math.inf, math.inf, pytest.approx(math.nan, nan_ok=True)]


def test_values_a_row_become_their_mean() -> None:
    rows = MetricRows.of_values(SHARE, [1.0, 0.0, 0.5], "by-hand")
    assert (rows.name, rows.signature, rows.details) == ("share", "by-hand", {})
    assert rows.rows.tolist() == [[1.0, 1.0], [0.0, 1.0], [0.5, 1.0]]
    assert rows.value() == 0.5


def test_the_value_is_that_of_the_sums_and_not_a_mean_of_rows() -> None:
    rows = MetricRows(ROOT, np.array([[9.0], [16.0]]), "by-hand")
    assert rows.value() == 5.0
    assert rows.values(np.array([[4.0], [81.0]])).tolist() == [2.0, 9.0]


def test_answers_keep_the_order_of_the_rows() -> None:
    answers = Answers([Prediction(str(n), "What ?", f"reference {n}", f"answer {n}") for n in (2, 1)])
    assert answers.texts == ["answer 2", "answer 1"]
    assert answers.references == ["reference 2", "reference 1"]


def test_a_metric_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SHARE.digits = 2  # type: ignore[misc]
