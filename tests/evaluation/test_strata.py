from __future__ import annotations

import math

import pytest

from medtune.evaluation.metrics import MetricRows, metric_named
from medtune.evaluation.strata import compare_strata, stratify
from medtune.records import QAPair


def row(number: int, qtype: str = "", source: str = "", *, template: bool = False) -> QAPair:
    return QAPair(f"row-{number}", qtype, "What ?", "That.", source=source, template=template)


def test_every_kind_of_stratum() -> None:
    rows = [
        row(0, "causes", "CDC", template=True),
        row(1, "symptoms", "CDC"),
        row(2, "causes", "NIH"),
        row(3, "", "", template=True),
    ]
    strata = stratify(rows, {"question_exact": {"row-0"}, "focus": {"row-0", "row-2", "row-9"}})
    assert strata == {
        ("answer", "not template"): [1, 2],
        ("answer", "template"): [0, 3],
        ("question type", "causes"): [0, 2],
        ("question type", "none given"): [3],
        ("question type", "symptoms"): [1],
        ("source", "CDC"): [0, 1],
        ("source", "NIH"): [2],
        ("source", "none given"): [3],
        ("leak", "does not leak"): [1, 3],
        ("leak", "leaks"): [0, 2],
        ("leak", "leaks by exact question"): [0],
        ("leak", "leaks by focus"): [0, 2],
    }


def test_a_kind_of_one_value_says_nothing() -> None:
    rows = [row(number, "causes", "CDC") for number in range(3)]
    assert stratify(rows, {}) == {}
    assert stratify([], {}) == {}
    assert list(stratify(rows, {"focus": ["row-1"]})) == [
        ("leak", "does not leak"),
        ("leak", "leaks"),
        ("leak", "leaks by focus"),
    ]


def rows_of(metric: str, values: list[float]) -> MetricRows:
    return MetricRows.of_values(metric_named(metric), values, "one-way")


def test_each_stratum_is_scored_on_its_own_rows_and_groups() -> None:
    before = [rows_of("rougeL", [0.1, 0.2, 0.3, *[0.4] * 5]), rows_of("compat_rougeL", [0.0] * 8)]
    after = [rows_of("compat_rougeL", [0.0] * 8), rows_of("rougeL", [0.2, 0.4, 0.3, *[0.8] * 5])]
    strata = {("source", "a"): [0, 1, 3, 4, 5, 6, 7], ("source", "b"): [2]}
    first, second = compare_strata(strata, list("xxyzuvwt"), before, after, splits=200, seed=0)
    assert (first.kind, first.value, first.n, first.groups) == ("source", "a", 7, 6)
    assert list(first.metrics) == ["rougeL"]  # the standard table alone
    measured = first.metrics["rougeL"]
    assert measured.baseline == pytest.approx(2.3 / 7)
    assert measured.tuned == pytest.approx(4.6 / 7)
    assert measured.difference == pytest.approx(2.3 / 7)
    # Six groups, one of two rows that differ by 0.1 and 0.2: that one alone, and any of the others.
    assert measured.ci95 == pytest.approx((0.15, 0.4))
    assert (second.n, second.groups) == (1, 1)
    assert second.metrics["rougeL"].difference == 0
    assert second.metrics["rougeL"].ci95 is None  # one group has no spread to show


def test_losses_that_overflow_stay_in_their_stratum() -> None:
    before, after = (
        [rows_of("perplexity", [math.inf, *[1.0] * 6])],
        [rows_of("perplexity", [math.inf, *[2.0] * 6])],
    )
    strata = {("source", "a"): [0, 1, 2, 3, 4, 5], ("source", "b"): [1, 2, 3, 4, 5, 6]}
    first, second = compare_strata(strata, [""] * 7, before, after, splits=100, seed=0)
    assert math.isnan(first.metrics["perplexity"].difference)
    assert first.metrics["perplexity"].ci95 is None
    assert second.metrics["perplexity"].difference == pytest.approx(math.exp(2) - math.e)
    assert second.metrics["perplexity"].ci95 == pytest.approx((math.exp(2) - math.e,) * 2)
