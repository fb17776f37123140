"""All charts of a run: the same each time, and only those that it has the numbers for."""

from __future__ import annotations

import math
from dataclasses import replace

from medtune.publishing.report import ReportData, figures
from medtune.publishing.report.charts import draw_charts
from medtune.publishing.report.reading_run import Step
from medtune.run_dir.directory import RunDir


def test_the_same_run_gives_the_same_charts(drawn: dict[str, str], shared_run: RunDir) -> None:
    assert figures(shared_run) == drawn


def test_charts_without_numbers_are_left_out(data: ReportData) -> None:
    assert list(draw_charts(replace(data, history=(), provenance={}))) == ["differences", "lengths"]
    nowhere = tuple(Step(step, loss=math.nan, learning_rate=None) for step in range(3))
    assert "loss" not in draw_charts(replace(data, history=nowhere))
    uncounted = {name: [replace(r, new_tokens=None, reference_tokens=None) for r in rows]
                 for name, rows in data.predictions.items()}  # fmt: skip
    assert "lengths" not in draw_charts(replace(data, predictions=uncounted))
    unscored = draw_charts(replace(data, comparison=replace(data.comparison, rows=())))
    assert unscored
    assert "differences" not in unscored
