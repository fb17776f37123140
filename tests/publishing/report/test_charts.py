from __future__ import annotations

import math
from dataclasses import replace

from medtune.publishing.report import ReportData, figures
from medtune.publishing.report.charts import draw_charts, length_bars, scaled
from medtune.publishing.report.reading_run import Step
from medtune.records import ComparisonRow
from medtune.run_dir.directory import RunDir


def row(metric: str, difference: float, interval: tuple[float, float] | None) -> ComparisonRow:
    return ComparisonRow(metric, 1.0, 1.0 + difference, difference, interval, 0.1, 0.1, "better", None, 9, 3, "one-way")


def test_the_same_run_gives_the_same_charts(drawn: dict[str, str], shared_run: RunDir) -> None:
    assert figures(shared_run) == drawn


def test_differences_share_an_axis_on_which_better_is_to_the_right() -> None:
    assert scaled(row("bleu", 2.0, (1.0, 4.0))) == (0.5, 0.25, 1.0)
    assert scaled(row("perplexity", -2.0, (-4.0, 1.0))) == (0.5, -0.25, 1.0)
    assert scaled(row("rougeL", -0.02, (-0.04, 0.01))) == (-0.5, -1.0, 0.25)
    assert scaled(row("exact_match", 0.0, (0.0, 0.0))) == (0.0, 0.0, 0.0)
    for interval in (None, (-math.inf, 1.0), (math.nan, 1.0)):
        assert scaled(row("bleu", 0.5, interval)) is None


def test_charts_without_numbers_are_left_out(data: ReportData) -> None:
    assert list(draw_charts(replace(data, history=(), provenance={}))) == ["differences", "lengths"]
    nowhere = tuple(Step(step, loss=math.nan, learning_rate=None) for step in range(3))
    assert "loss" not in draw_charts(replace(data, history=nowhere))
    uncounted = {name: [replace(r, new_tokens=None, reference_tokens=None) for r in rows]
                 for name, rows in data.predictions.items()}  # fmt: skip
    assert "lengths" not in draw_charts(replace(data, predictions=uncounted))
    assert draw_charts(replace(data, comparison=replace(data.comparison, rows=())))


def test_histograms_end_where_the_cap_and_most_references_do() -> None:
    assert length_bars({"references": [100] * 20}, 200) == 24
    assert length_bars({"references": [100] * 50 + [390] * 50}, 200) == 39
    assert length_bars({"references": [10**9] * 9}, 200) == 80
    assert length_bars({}, 20) == 24
