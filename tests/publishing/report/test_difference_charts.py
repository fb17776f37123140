"""Small multiples: sizes in each metric's own unit, nothing clipped, nothing on top of another, however long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import pytest

from chart_texts import misplaced_texts, text_boxes
from comparisons import row
from medtune.publishing.report import ReportData
from medtune.publishing.report.difference_charts import (
    Panel,
    draw_differences,
    draw_panel,
    format_ticks,
    make_panels,
)
from medtune.publishing.report.svg import COLOURS, house_style, to_svg
from medtune.records import Comparison, Control, ControlName, Score

CONTROLS: tuple[ControlName, ...] = (
    "few_shot", "random_answer", "nearest_question", "retrieval", "tuned_retrieval", "cut_reference",
)  # fmt: skip


def panel(*controls: float, **changes: object) -> Panel:
    perplexity = row("perplexity", 20.0, 18.0, interval=(-3.0, -1.0), detectable=0.5, confidence=0.983)
    names = (name.replace("_", " ") for name in CONTROLS)
    return Panel(replace(perplexity, **changes), tuple(zip(names, controls, strict=False)))  # type: ignore[arg-type]


def drawn(panel: Panel) -> str:
    with house_style():
        return to_svg(draw_panel(panel))


def controls(values: Mapping[ControlName, float]) -> tuple[Control, ...]:
    return tuple(
        Control(name, name, {"perplexity": Score(value, 9, "one-way", 3, None)}, ()) for name, value in values.items()
    )


def test_primary_metrics_come_first_and_what_has_no_number_not_at_all(data: ReportData) -> None:
    rows = (
        row("bleu", 1.0, 2.0, "descriptive"),
        row("rougeL", 0.1, 0.2, "cannot tell"),
        row("perplexity", 1.0, math.inf, "undefined"),
        row("rouge1", math.nan, math.nan, "undefined"),
        row("compat_bleu", 0.1, 0.2, "descriptive", table="compat"),
        row("bits_per_byte", 1.0, 2.0, "descriptive", interval=(-math.inf, 1.0)),
    )
    found = make_panels(replace(data.comparison, rows=rows, controls=()))
    assert [panel.row.metric for panel in found] == ["rougeL", "bleu"]
    assert draw_differences([]) is None


def test_controls_are_beside_the_models_where_they_have_a_value() -> None:
    perplexity = row("perplexity", 20.0, 18.0)
    comparison = Comparison(
        (perplexity, row("bleu", 1.0, 2.0)), {}, {}, controls=controls({"few_shot": 19.0, "retrieval": math.inf})
    )
    first, second = make_panels(comparison)
    assert first.systems == [("baseline", 20.0), ("tuned model", 18.0), ("few shot", 19.0)]
    assert second.systems == [("baseline", 1.0), ("tuned model", 2.0)]


def test_a_panel_says_what_it_shows_in_words() -> None:
    texts = [box.text for box in text_boxes(drawn(panel(19.0)))]
    for text in (
        "perplexity, lower is better",
        "primary: ● better, difference -2.00",
        "98.3 % interval [-3.00, -1.00]",
        "shaded: ± 0.50, which this test would miss",
        "20.00",
        "18.00",
        "19.00",
    ):
        assert text in texts
    described = panel(19.0).describe()
    assert described.startswith("baseline 20.00, tuned model 18.00, few shot 19.00; primary: ● better")
    bare = [box.text for box in text_boxes(drawn(panel(verdict="descriptive", interval=None, detectable=None)))]
    assert "descriptive, difference -2.00" in bare
    assert "no interval" in bare
    assert not any("shaded" in text for text in bare)
    # Where all answers score alike there is no error to go by.
    assert not any("shaded" in box.text for box in text_boxes(drawn(panel(detectable=0.0))))


def test_the_axis_is_the_metrics_own_and_holds_models_interval_and_power() -> None:
    low, high = panel().limits
    # The interval counts from the baseline: 17 to 19; the smallest detectable difference: 19.5 to 20.5.
    assert low < 17.0 < 20.5 < high
    assert high - low < 1.2 * (20.5 - 17.0)
    # A control near these widens the axis; one far from them does not, and is an arrow at its end.
    assert panel(24.0).limits[1] > 24.0
    assert panel(24.0, 1000.0, -500.0).limits == panel(24.0).limits
    assert drawn(panel(1000.0)) != drawn(panel(20.0))
    # Equal values still have an axis.
    low, high = panel(tuned=20.0, difference=0.0, interval=(0.0, 0.0), detectable=None).limits
    assert low < 20.0 < high


@pytest.mark.parametrize(("verdict", "colour"), [("better", "tuned"), ("worse", "worse"), ("cannot tell", "text")])
def test_the_verdict_has_its_colour(verdict: str, colour: str) -> None:
    _, *texts = drawn(panel(verdict=verdict)).split("<text")
    (line,) = (text for text in texts if "primary: " in text)
    assert f'fill="var(--chart-{colour}, {COLOURS[colour]})"' in line


LONG = (0.0, 18.0, 123456.78, -999999.99, 1e7, 1e99)


@pytest.mark.parametrize(("baseline", "tuned"), list(product(LONG, LONG)))
def test_no_text_is_clipped_or_on_another(baseline: float, tuned: float) -> None:
    changes = {"baseline": baseline, "tuned": tuned, "difference": tuned - baseline, "verdict": "too few groups"}
    for half in (0.0001, 123456.78):
        ends = (tuned - baseline - half, tuned - baseline + half)
        svg = drawn(panel(*LONG[2:], **changes, interval=ends, detectable=half))
        assert misplaced_texts(svg) == []


def test_all_panels_in_one_chart_are_below_each_other() -> None:
    found = [panel(*LONG[2:]), panel(), panel(19.0, verdict="descriptive", metric="bertscore_f1_rescaled")]
    with house_style():
        chart = draw_differences([*found, panel(metric="a metric of another version " * 9)])
    assert chart is not None
    svg = to_svg(chart, standalone=True)
    assert misplaced_texts(svg) == []
    assert "…" in svg
    assert chart.description.startswith("4 metrics, each on an axis of its own unit.")


def test_ticks_have_the_decimals_that_tell_them_apart() -> None:
    assert format_ticks([0.0, 50_000.0, 100_000.0]) == ["0", "50,000", "100,000"]
    assert format_ticks([0.58, 0.6]) == ["0.58", "0.60"]
    assert format_ticks([2e7]) == ["2.00e+07"]
    assert format_ticks([]) == []
    assert format_ticks([0.0]) == ["0"]
