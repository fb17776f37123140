"""Charts of the training: long histories as means, and memory of the device that was measured."""

from __future__ import annotations

import math
from dataclasses import replace

from medtune.publishing.report import ReportData
from medtune.publishing.report.charts import draw_charts
from medtune.publishing.report.reading_run import Step
from medtune.publishing.report.svg import to_svg
from medtune.publishing.report.training_charts import draw_memory, planned_peak, stage_peaks, thinned, validation_losses


def test_a_long_history_is_drawn_by_its_means(data: ReportData) -> None:
    points = [(step, float(step % 2)) for step in range(100_000)]
    few = thinned(points)
    assert len(few) <= 400
    assert {value for _, value in few} == {0.5}
    assert thinned(points[:3]) == [(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]
    history = tuple(Step(step, loss=2.0 + math.sin(step), tokens_per_second=1.0) for step in range(1, 20_000))
    chart = draw_charts(replace(data, history=history))["loss"]
    assert len(to_svg(chart)) < 60_000


def test_memory_is_the_gpus_where_there_is_one() -> None:
    stages = {"data": {"peak_rss_bytes": 5}, "train": {"peak_rss_bytes": 7, "peak_gpu_bytes": None}}
    assert stage_peaks({"stages": stages}) == ({"data": 5, "train": 7}, False)
    stages["train"]["peak_gpu_bytes"] = 9
    assert stage_peaks({"stages": stages}) == ({"train": 9}, True)
    assert stage_peaks({}) == ({}, False)


def test_validations_are_those_that_are_finite() -> None:
    history = (Step(1, loss=3.0), Step(1, validation_loss=2.5), Step(2, validation_loss=math.nan))
    assert validation_losses(history) == [(1, 2.5)]


def test_the_planned_peak_is_marked_on_a_gpu_alone() -> None:
    train = {"peak_rss_bytes": 1 << 30, "plan": {"peak_bytes": 3 << 29}}
    assert planned_peak({"stages": {"train": train}}) == 3 << 29
    assert planned_peak({"stages": {"train": {"plan": {"peak_bytes": 0}}}}) is None
    assert planned_peak({}) is None
    chart = draw_memory({"stages": {"train": train}})
    assert chart is not None
    assert "planned" not in to_svg(chart)
    chart = draw_memory({"stages": {"train": {**train, "peak_gpu_bytes": 1 << 30}}})
    assert chart is not None
    assert "1.00 (planned 1.50)" in to_svg(chart)
