from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from medtune.errors import DataError
from medtune.evaluation.comparison import compare_scores, judge, lower_is_better, require_same_rows
from medtune.evaluation.formatting import format_difference, format_value
from medtune.evaluation.scores import METRICS
from medtune.records import ComparisonRow, Prediction, Score


def score(value: float, *, n: int = 10, signature: str = "one-way") -> Score:
    return Score(value=value, n=n, signature=signature)


def row(metric: str, baseline: float, tuned: float) -> ComparisonRow:
    return ComparisonRow(metric, baseline, tuned, tuned - baseline, 10, "one-way")


def test_pairs_the_scores_in_order() -> None:
    rows = compare_scores(
        {"bleu": score(5.0), "perplexity": score(9.0)}, {"perplexity": score(3.0), "bleu": score(7.5)}
    )
    assert rows == [
        ComparisonRow("bleu", 5.0, 7.5, 2.5, 10, "one-way"),
        ComparisonRow("perplexity", 9.0, 3.0, -6.0, 10, "one-way"),
    ]
    assert compare_scores({}, {}) == []


def test_infinities_are_kept() -> None:
    (only,) = compare_scores({"perplexity": score(math.inf)}, {"perplexity": score(3.0)})
    assert only.difference == -math.inf
    (only,) = compare_scores({"perplexity": score(math.inf)}, {"perplexity": score(math.inf)})
    assert math.isnan(only.difference)


def test_unlike_scores_are_refused_by_name_all_at_once() -> None:
    baseline = {"bleu": score(1), "rougeL": score(1), "rouge1": score(1), "rouge2": score(1)}
    tuned = {"bleu": score(1, signature="other"), "rougeL": score(1, n=9), "rouge2": score(1), "perplexity": score(1)}
    with pytest.raises(DataError) as error:
        compare_scores(baseline, tuned)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["bleu", "rougeL", "rouge1", "perplexity"]
    assert "one-way" in lines[0]
    assert "other" in lines[0]
    assert "10 rows" in lines[1]
    assert "the tuned model has no such score" in lines[2]
    assert "the baseline has no such score" in lines[3]


def test_only_perplexity_is_better_when_lower() -> None:
    assert [metric for metric in METRICS if lower_is_better(metric)] == ["perplexity"]


@pytest.mark.parametrize(
    ("metric", "baseline", "tuned", "verdict"),
    [
        ("bleu", 5.0, 6.0, "better"),
        ("bleu", 6.0, 5.0, "worse"),
        ("bleu", 5.0, 5.004, "equal"),
        ("rougeL", 0.5, 0.5004, "better"),
        ("rougeL", 0.5, 0.50004, "equal"),
        ("perplexity", 9.0, 3.0, "better"),
        ("perplexity", 3.0, 9.0, "worse"),
        ("perplexity", math.inf, 3.0, "better"),
        ("perplexity", 3.0, math.inf, "worse"),
        ("perplexity", math.inf, math.inf, "undefined"),
        ("perplexity", math.nan, 3.0, "undefined"),
    ],
)
def test_judge(metric: str, baseline: float, tuned: float, verdict: str) -> None:
    assert judge(row(metric, baseline, tuned)) == verdict


def test_numbers_as_they_are_written() -> None:
    assert format_value("bleu", 5.126) == "5.13"
    assert format_value("rougeL", 0.12346) == "0.1235"
    assert format_value("perplexity", 1234567.0) == "1.235e+06"
    assert [format_value("perplexity", value) for value in (math.inf, math.nan)] == ["inf", "nan"]
    assert [format_difference("bleu", value) for value in (1.0, -1.0, 0.0, -0.004)] == [
        "+1.00",
        "-1.00",
        "0.00",
        "0.00",
    ]
    assert [format_difference("bleu", value) for value in (math.inf, -math.inf, math.nan)] == ["+inf", "-inf", "nan"]


def test_the_same_rows_are_required(make_prediction: Callable[..., Prediction]) -> None:
    one = make_prediction()
    require_same_rows([one], [make_prediction("Another answer.", reference_nll=9.0)])
    with pytest.raises(DataError, match="baseline has 1 predictions, tuned has 2"):
        require_same_rows([one], [one, one])
    for changes in ({"id": "row-9"}, {"reference": "Other."}, {"question": "Other?"}):
        with pytest.raises(DataError, match="row-0"):
            require_same_rows([one], [make_prediction(**changes)])
