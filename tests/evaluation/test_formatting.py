from __future__ import annotations

import math

import pytest

from medtune.evaluation.formatting import (
    HEADLINE_METRICS,
    format_count,
    format_difference,
    format_interval,
    format_p,
    format_value,
    metric_label,
)


def test_labels_are_those_of_both_tables() -> None:
    assert [metric_label(name) for name in ("rougeL", "compat_rougeL", "unheard_of")] == ["ROUGE-L F1"] * 2 + [
        "unheard_of"
    ]


def test_one_metric_of_each_kind_is_a_headline() -> None:
    assert HEADLINE_METRICS == ("bleu", "rougeL", "bertscore_f1", "perplexity")


def test_values() -> None:
    assert format_value("bleu", 5.126) == "5.13"
    assert format_value("compat_bleu", 0.0486524) == "0.0487"
    assert format_value("rougeL", 0.12346) == "0.1235"
    assert format_value("perplexity", 999999.0) == "999999.00"
    assert format_value("perplexity", 1234567.0) == "1.235e+06"
    assert [format_value("perplexity", value) for value in (math.inf, math.nan)] == ["inf", "nan"]


def test_differences_carry_their_sign_unless_they_show_as_zero() -> None:
    values = (1.0, -1.0, 0.0, -0.004, -0.006, math.inf, -math.inf, math.nan)
    shown = ["+1.00", "-1.00", "0.00", "0.00", "-0.01", "+inf", "-inf", "nan"]
    assert [format_difference("bleu", value) for value in values] == shown


def test_intervals() -> None:
    assert format_interval("bleu", (-1.0, 2.5)) == "[-1.00, +2.50]"
    assert format_interval("rougeL", (0.1, 0.25), signed=False) == "[0.1000, 0.2500]"
    assert format_interval("bleu", None) == "-"


@pytest.mark.parametrize(
    ("p_value", "shown"), [(None, "-"), (1.0, "1.000"), (0.0494, "0.049"), (0.001, "0.001"), (0.00099, "< 0.001")]
)
def test_p_values(p_value: float | None, shown: str) -> None:
    assert format_p(p_value) == shown


def test_counts() -> None:
    assert [format_count(number, "row") for number in (0, 1, 2, 1600)] == ["0 rows", "1 row", "2 rows", "1,600 rows"]
