from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from medtune.errors import DataError
from medtune.evaluation.comparison import (
    common_metrics,
    compare_measured,
    compare_strata,
    require_comparable_scores,
    require_same_rows,
    stratify,
)
from medtune.evaluation.metrics import MetricRows, metric_named
from medtune.evaluation.metrics.perplexity import PERPLEXITY
from medtune.evaluation.significance import Resamples, holm, paired_p_value
from medtune.records import MetricTable, Prediction, QAPair, Score

ROWS = 200
DRAWN = Resamples.draw([f"topic {row // 2}" for row in range(ROWS)], resamples=1000, seed=0)  # 100 topics of two rows


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


def test_interval_and_p_are_those_of_paired_resamples() -> None:
    """Both sides are resampled alike, so that what is hard for both cancels out."""
    before, after = mean_rows("rougeL"), mean_rows("rougeL", 0.01, seed=1)
    before.rows[:, 0] += 3 * np.arange(ROWS)
    after.rows[:, 0] += 3 * np.arange(ROWS)
    (row,) = compare_measured([before], [after], DRAWN)
    assert row.ci95 is not None
    assert row.ci95[1] - row.ci95[0] < 0.1
    differences = after.values(DRAWN.sums(after.rows)) - before.values(DRAWN.sums(before.rows))
    assert row.ci95 == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    assert row.p_value == paired_p_value(differences, row.difference)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (mean_rows("bleu_like"), mean_rows("bleu_like", 0.05, seed=1), "better"),
        (mean_rows("bleu_like", 0.05, seed=1), mean_rows("bleu_like"), "worse"),
        (mean_rows("bleu_like"), mean_rows("bleu_like", seed=2), "not distinguishable"),
        (mean_rows("bleu_like"), mean_rows("bleu_like"), "not distinguishable"),
        (losses(2.0), losses(1.0, seed=1), "better"),
        (losses(1.0, seed=1), losses(2.0), "worse"),
        (losses(1.0), losses(1.0, seed=2), "not distinguishable"),
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
        assert (row.ci95, row.p_value, row.p_adjusted, row.rows_needed) == (None, None, None, None)


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
    drawn = Resamples.draw(["topic"] * ROWS, resamples=1000, seed=0)
    (row,) = compare_measured([mean_rows("rougeL")], [mean_rows("rougeL", 0.3)], drawn)
    assert (row.groups, row.ci95, row.p_value, row.verdict) == (1, None, None, "undefined")
    assert row.difference == pytest.approx(0.3)


def borderline(count: int, table: MetricTable) -> list[tuple[MetricRows, MetricRows]]:
    names = [f"{table} {number}" for number in range(count)]
    return [
        (mean_rows(name, table=table), mean_rows(name, 0.02, seed=number + 1, table=table))
        for number, name in enumerate(names)
    ]


def test_holm_corrects_within_each_table_and_the_verdict_goes_by_it() -> None:
    pairs = [*borderline(6, "standard"), *borderline(3, "compat")]
    rows = compare_measured([before for before, _ in pairs], [after for _, after in pairs], DRAWN)
    for table, count in (("standard", 6), ("compat", 3)):
        family = [row for row in rows if row.table == table]
        p_values = [row.p_value for row in family if row.p_value is not None]
        assert len(p_values) == count
        assert [row.p_adjusted for row in family] == pytest.approx(holm(p_values))
        assert [row.verdict for row in family] == [
            "better" if row.p_adjusted is not None and row.p_adjusted < 0.05 else "not distinguishable"
            for row in family
        ]
    # The same pair of systems, in a smaller family, is corrected less.
    assert rows[0].p_value == rows[6].p_value
    assert (rows[0].p_adjusted or 0) > (rows[6].p_adjusted or 1)
    lost_by_correction = [row for row in rows if row.p_value and row.p_value < 0.05 and row.verdict != "better"]
    assert lost_by_correction


def test_an_undefined_metric_is_no_test_in_the_family() -> None:
    pairs = [(losses(math.inf), losses(1.0)), *borderline(1, "standard")]
    rows = compare_measured([before for before, _ in pairs], [after for _, after in pairs], DRAWN)
    assert rows[1].p_adjusted == rows[1].p_value


def test_what_is_not_distinguishable_names_a_larger_n() -> None:
    """In a family of ten, a difference that correction alone takes away still needs more rows than there are."""
    unclear = 0
    for count in (1, 10):
        pairs = borderline(count, "standard")
        for row in compare_measured([before for before, _ in pairs], [after for _, after in pairs], DRAWN):
            if row.verdict == "not distinguishable":
                unclear += 1
                assert row.rows_needed is not None
                assert row.rows_needed > row.n
    assert unclear > 3
    alone, of_ten = (compare_measured(*zip(*borderline(count, "standard"), strict=True), DRAWN)[0] for count in (1, 10))
    assert alone.rows_needed is not None
    assert of_ten.rows_needed == pytest.approx(alone.rows_needed * 13.31 / 7.849, rel=0.01)


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
    before = [rows_of("rougeL", [0.1, 0.2, 0.3, 0.4]), rows_of("compat_rougeL", [0.0] * 4)]
    after = [rows_of("compat_rougeL", [0.0] * 4), rows_of("rougeL", [0.2, 0.4, 0.3, 0.8])]
    strata = {("source", "a"): [0, 1, 3], ("source", "b"): [2]}
    first, second = compare_strata(strata, ["x", "x", "y", "z"], before, after, resamples=200, seed=0)
    assert (first.kind, first.value, first.n, first.groups) == ("source", "a", 3, 2)
    assert list(first.metrics) == ["rougeL"]  # the standard table alone
    measured = first.metrics["rougeL"]
    assert measured.baseline == pytest.approx(0.7 / 3)
    assert measured.tuned == pytest.approx(1.4 / 3)
    assert measured.difference == pytest.approx(0.7 / 3)
    # Two groups, of two rows and of one: all of the first, all of the second.
    assert measured.ci95 == pytest.approx((0.15, 0.4))
    assert (second.n, second.groups) == (1, 1)
    assert second.metrics["rougeL"].difference == 0
    assert second.metrics["rougeL"].ci95 is None  # one group has no spread to show


def test_losses_that_overflow_stay_in_their_stratum() -> None:
    before, after = [rows_of("perplexity", [math.inf, 1.0, 1.0])], [rows_of("perplexity", [math.inf, 2.0, 2.0])]
    strata = {("source", "a"): [0, 1], ("source", "b"): [1, 2]}
    first, second = compare_strata(strata, ["", "", ""], before, after, resamples=100, seed=0)
    assert math.isnan(first.metrics["perplexity"].difference)
    assert first.metrics["perplexity"].ci95 is None
    assert second.metrics["perplexity"].difference == pytest.approx(math.exp(2) - math.e)
    assert second.metrics["perplexity"].ci95 == pytest.approx((math.exp(2) - math.e,) * 2)
