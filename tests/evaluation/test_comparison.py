from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.errors import DataError
from medtune.evaluation.comparison import (
    common_metrics,
    compare_measured,
    compare_strata,
    primary_metrics,
    require_comparable_scores,
    require_same_rows,
    stratify,
)
from medtune.evaluation.metrics import MetricRows, metric_named
from medtune.evaluation.metrics.perplexity import PERPLEXITY
from medtune.evaluation.significance import Subsamples, holm
from medtune.records import ComparisonRow, MetricTable, Prediction, QAPair, Score

ROWS = 200
DRAWN = Subsamples.draw([f"topic {row // 2}" for row in range(ROWS)], splits=1000, seed=0)  # 100 topics of two rows


def mean_rows(
    metric: str, shift: float = 0.0, *, seed: int = 0, table: MetricTable = "standard", signature: str = "one-way"
) -> MetricRows:
    values = np.random.default_rng(seed).normal(0.5 + shift, 0.1, size=ROWS)
    return MetricRows.of_values(replace(metric_named(metric), table=table), list(values), signature)


def losses(nats: float, *, seed: int = 0) -> MetricRows:
    values = np.random.default_rng(seed).normal(nats, 0.1, size=ROWS) * 10
    return MetricRows(PERPLEXITY, np.column_stack([values, np.full(ROWS, 10.0)]), "one-way")


def test_a_row_holds_both_sides_their_difference_and_what_it_rests_on() -> None:
    before, after = mean_rows("rougeL"), mean_rows("rougeL", 0.05, seed=1)
    (row,) = compare_measured([before], [after], DRAWN)
    assert (row.metric, row.n, row.groups, row.signature, row.table) == ("rougeL", 200, 100, "one-way", "standard")
    assert row.baseline == pytest.approx(before.rows[:, 0].mean())
    assert row.tuned == pytest.approx(after.rows[:, 0].mean())
    assert row.difference == pytest.approx(row.tuned - row.baseline)
    assert row.difference > 0.03
    assert row.ci95 is not None
    assert row.ci95[0] < row.difference < row.ci95[1]
    assert (row.p_value, row.p_adjusted, row.verdict) == (pytest.approx(1 / 1001), pytest.approx(1 / 1001), "better")


def test_interval_and_p_are_those_of_paired_parts() -> None:
    """Both sides are split alike, so that what is hard for both cancels out."""
    before, after = mean_rows("rougeL"), mean_rows("rougeL", 0.01, seed=1)
    before.rows[:, 0] += 3 * np.arange(ROWS)
    after.rows[:, 0] += 3 * np.arange(ROWS)
    (row,) = compare_measured([before], [after], DRAWN)
    assert row.ci95 is not None
    assert row.ci95[1] - row.ci95[0] < 0.1
    differences = after.values(DRAWN.sums(after.rows)) - before.values(DRAWN.sums(before.rows))
    assert row.ci95 == row.interval == DRAWN.interval(differences)
    assert row.p_value == DRAWN.p_value(differences, row.difference)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (mean_rows("bleu_like"), mean_rows("bleu_like", 0.05, seed=1), "better"),
        (mean_rows("bleu_like", 0.05, seed=1), mean_rows("bleu_like"), "worse"),
        (mean_rows("bleu_like"), mean_rows("bleu_like", seed=2), "cannot tell"),
        (mean_rows("bleu_like"), mean_rows("bleu_like"), "cannot tell"),
        (mean_rows("rougeL"), mean_rows("rougeL"), "equivalent"),
        (mean_rows("rougeL"), mean_rows("rougeL", seed=2), "cannot tell"),
        (losses(2.0), losses(1.0, seed=1), "better"),
        (losses(1.0, seed=1), losses(2.0), "worse"),
        (losses(1.0), losses(1.0, seed=2), "equivalent"),
        (mean_rows("bits_per_byte", 0.05, seed=1), mean_rows("bits_per_byte"), "better"),
        (losses(math.inf), losses(1.0), "undefined"),
        (losses(1.0), losses(1e9), "undefined"),
        (losses(math.inf), losses(math.inf), "undefined"),
        (losses(math.nan), losses(1.0), "undefined"),
    ],
)
def test_verdicts(before: MetricRows, after: MetricRows, verdict: str) -> None:
    (row,) = compare_measured([before], [after], DRAWN)
    assert row.verdict == verdict
    if verdict == "undefined":
        assert (row.ci95, row.interval, row.p_value, row.p_adjusted, row.rows_needed) == (None, None, None, None, None)


def test_a_model_beside_itself() -> None:
    (row,) = compare_measured([losses(1.0)], [losses(1.0)], DRAWN)
    assert (row.difference, row.ci95, row.p_value, row.rows_needed) == (0.0, (0.0, 0.0), 1.0, None)


def test_infinities_are_kept() -> None:
    (row,) = compare_measured([losses(math.inf)], [losses(1.0)], DRAWN)
    assert (row.baseline, row.difference) == (math.inf, -math.inf)
    (row,) = compare_measured([losses(math.inf)], [losses(math.inf)], DRAWN)
    assert math.isnan(row.difference)


def test_one_group_gets_no_verdict() -> None:
    """However large the difference, rows of a single topic say nothing about another topic."""
    drawn = Subsamples.draw(["topic"] * ROWS, splits=1000, seed=0)
    (row,) = compare_measured([mean_rows("rougeL")], [mean_rows("rougeL", 0.3)], drawn)
    assert (row.groups, row.ci95, row.p_value, row.verdict) == (1, None, None, "undefined")
    assert row.difference == pytest.approx(0.3)


def test_too_few_groups_get_no_verdict() -> None:
    """Over six groups no p lies under 2 / 2**6: significant alone, and never among three."""
    groups = [f"topic {row % 6}" for row in range(ROWS)]
    drawn = Subsamples.draw(groups, splits=1000, seed=0)
    names = ["rouge1", "rouge2", "rougeL"]
    before, after = [mean_rows(name) for name in names], [mean_rows(name, 0.5) for name in names]
    assert compare_measured(before[:1], after[:1], drawn)[0].verdict == "better"
    rows = compare_measured(before, after, drawn, primary=names)
    assert [row.verdict for row in rows] == ["too few groups"] * 3
    assert [row.interval for row in rows] == [None] * 3


def borderline(names: Sequence[str]) -> list[tuple[MetricRows, MetricRows]]:
    """Differences of about two standard errors."""
    return [(mean_rows(name), mean_rows(name, 0.02, seed=number + 1)) for number, name in enumerate(names)]


def compare_borderline(names: Sequence[str], primary: Sequence[str] | None = None) -> list[ComparisonRow]:
    before, after = zip(*borderline(names), strict=True)
    return compare_measured(before, after, DRAWN, primary=primary)


NAMES = ("rouge1", "rouge2", "rougeL", "bertscore_f1", "exact_match")


def test_primary_metrics_by_name_or_by_default() -> None:
    every = [*NAMES, "perplexity"]
    assert primary_metrics(every) == ("perplexity", "rougeL", "bertscore_f1")
    assert primary_metrics(every, ["exact_match"]) == ("exact_match",)
    assert primary_metrics(["bleu", "rougeL"]) == ("rougeL",)
    assert primary_metrics(["bleu", "rouge1", "rouge2", "exact_match"]) == ("bleu", "rouge1", "rouge2")
    # A control that no model wrote has no perplexity.
    assert primary_metrics(["bleu"], ["perplexity"]) == ("bleu",)


def test_holm_corrects_over_the_primary_metrics_alone() -> None:
    rows = {row.metric: row for row in compare_borderline(NAMES, ["rouge1", "rouge2", "exact_match"])}
    tested = [rows[name] for name in ("rouge1", "rouge2", "exact_match")]
    assert [row.p_adjusted for row in tested] == pytest.approx(holm([row.p_value or 0 for row in tested]))
    assert [row.is_primary for row in rows.values()] == [True, True, False, False, True]
    for name in ("rougeL", "bertscore_f1"):
        row = rows[name]
        assert (row.verdict, row.p_adjusted, row.confidence) == ("descriptive", None, 0.95)
        assert row.interval == row.ci95


def test_companions_are_never_tested() -> None:
    before, after = losses(1.0), losses(2.0)
    bits = replace(before, metric=metric_named("bits_per_byte")), replace(after, metric=metric_named("bits_per_byte"))
    rows = compare_measured([before, bits[0]], [after, bits[1]], DRAWN)
    assert [row.verdict for row in rows] == ["worse", "descriptive"]
    assert rows[0].p_value == rows[1].p_value


@given(st.lists(st.floats(-0.04, 0.04), min_size=1, max_size=3), st.integers(0, 50))
def test_a_verdict_and_its_interval_never_disagree(shifts: list[float], seed: int) -> None:
    names = NAMES[: len(shifts)]
    before = [mean_rows(name) for name in names]
    after = [mean_rows(name, shift, seed=seed) for name, shift in zip(names, shifts, strict=True)]
    for row in compare_measured(before, after, DRAWN, primary=names):
        assert row.interval is not None
        assert (row.verdict in ("better", "worse")) == (not row.interval[0] <= 0 <= row.interval[1])
        assert row.ci95 is not None
        assert row.interval[0] <= row.ci95[0] <= row.ci95[1] <= row.interval[1]


def test_an_undefined_metric_is_no_test_in_the_family() -> None:
    pairs = [(losses(math.inf), losses(1.0)), *borderline(["rougeL"])]
    rows = compare_measured([before for before, _ in pairs], [after for _, after in pairs], DRAWN)
    assert rows[1].p_adjusted == rows[1].p_value


def test_equivalence_is_two_one_sided_tests_within_the_margin() -> None:
    before, after = mean_rows("rougeL"), mean_rows("rougeL", seed=3)
    (usual,) = compare_measured([before], [after], DRAWN)
    inner = DRAWN.interval(after.values(DRAWN.sums(after.rows)) - before.values(DRAWN.sums(before.rows)), 0.90)
    assert inner is not None
    reach = max(map(abs, inner))
    assert reach > 0.01
    assert (usual.verdict, usual.margin) == ("cannot tell", 0.01)
    for margin, verdict in ((reach * 1.01, "equivalent"), (reach * 0.99, "cannot tell")):
        (row,) = compare_measured([before], [after], DRAWN, margins={"rougeL": margin})
        assert (row.verdict, row.margin) == (verdict, margin)
    # A difference that is there is named, however small it is.
    (found,) = compare_measured([before], [mean_rows("rougeL", 0.1)], DRAWN, margins={"rougeL": 1.0})
    assert found.verdict == "better"


def test_what_cannot_be_told_names_a_larger_n_and_a_smaller_difference() -> None:
    """Where correction alone takes a difference away, it still needs more rows than there are."""
    unclear = [row for row in compare_borderline(NAMES[:3], NAMES[:3]) if row.verdict == "cannot tell"]
    assert unclear
    for row in unclear:
        assert row.rows_needed is not None
        assert row.rows_needed > row.n
        assert row.detectable is not None
        assert row.detectable > abs(row.difference)
    alone, of_three = compare_borderline(NAMES[:1])[0], compare_borderline(NAMES[:3], NAMES[:3])[0]
    assert alone.rows_needed is not None
    # (2.459 + 0.846)² over (1.984 + 0.846)², Student's t with 99 degrees of freedom.
    assert of_three.rows_needed == pytest.approx(alone.rows_needed * 1.352, rel=0.02)


def test_rows_come_in_the_baselines_order() -> None:
    names = ["rougeL", "bleu_like", "exact_match"]
    before = [mean_rows(name) for name in names]
    rows = compare_measured(before, before[::-1], DRAWN)
    assert [row.metric for row in rows] == names
    assert compare_measured([], [], DRAWN) == []


def test_different_scores_are_refused_by_name_all_at_once() -> None:
    baseline = {"bleu": ("one-way", 10), "rougeL": ("one-way", 10), "rouge1": ("one-way", 10), "rouge2": ("one-way", 9)}
    tuned = {"bleu": ("other", 10), "rougeL": ("one-way", 9), "rouge2": ("one-way", 9), "perplexity": ("one-way", 10)}
    with pytest.raises(DataError) as error:
        require_comparable_scores(baseline, tuned, ("first", "second"))
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["bleu", "rougeL", "rouge1", "perplexity"]
    assert "first one-way, second other" in lines[0]
    assert "first has 10 rows, second has 9" in lines[1]
    assert "the second has no such score" in lines[2]
    assert "the first has no such score" in lines[3]
    require_comparable_scores(baseline, dict(baseline), ("first", "second"))


def test_scores_of_different_signatures_never_compare() -> None:
    with pytest.raises(DataError, match="measured in two ways, which never compare"):
        compare_measured([mean_rows("rougeL")], [mean_rows("rougeL", signature="other")], DRAWN)
    with pytest.raises(DataError, match="the tuned model has no such score"):
        compare_measured([mean_rows("rougeL")], [], DRAWN)


def test_common_metrics() -> None:
    measured = [mean_rows("rougeL"), losses(1.0)]
    scores = {"rougeL": Score(0.5, 200, "one-way", 100, None)}
    assert common_metrics(measured, scores) == measured[:1]


def test_the_same_rows_are_required(make_prediction: Callable[..., Prediction]) -> None:
    one = make_prediction()
    require_same_rows([one], [make_prediction("Another answer.", reference_nll=9.0)])
    with pytest.raises(DataError, match="baseline has 1 predictions, tuned has 2"):
        require_same_rows([one], [one, one])
    for changes in ({"id": "row-9"}, {"reference": "Other."}, {"question": "Other?"}):
        with pytest.raises(DataError, match="row-0"):
            require_same_rows([one], [make_prediction(**changes)])
    with pytest.raises(DataError, match="baseline row row-0 and few_shot row row-9 are compared"):
        require_same_rows([one], [make_prediction(id="row-9")], ("baseline", "few_shot"))


def test_swapping_the_sides_swaps_the_signs() -> None:
    sides: Sequence[MetricRows] = (mean_rows("rougeL"), mean_rows("rougeL", 0.02, seed=1))
    (there,) = compare_measured([sides[0]], [sides[1]], DRAWN)
    (back,) = compare_measured([sides[1]], [sides[0]], DRAWN)
    assert there.ci95 is not None
    assert back.ci95 is not None
    assert back.difference == -there.difference
    assert back.ci95 == pytest.approx((-there.ci95[1], -there.ci95[0]))
    assert back.p_value == pytest.approx(there.p_value)


def labelled_row(number: int, qtype: str = "", source: str = "", *, template: bool = False) -> QAPair:
    return QAPair(f"row-{number}", qtype, "What ?", "That.", source=source, template=template)


def test_every_kind_of_stratum() -> None:
    rows = [
        labelled_row(0, "causes", "CDC", template=True),
        labelled_row(1, "symptoms", "CDC"),
        labelled_row(2, "causes", "NIH"),
        labelled_row(3, "", "", template=True),
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
    rows = [labelled_row(number, "causes", "CDC") for number in range(3)]
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
