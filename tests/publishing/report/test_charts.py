from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from medtune.publishing.report import ReportData, figures
from medtune.publishing.report.charts import draw_charts, length_bars, scaled
from medtune.publishing.report.reading_run import Step
from medtune.publishing.report.svg import COLOURS, to_svg
from medtune.publishing.report.training_charts import stage_peaks, thinned
from medtune.records import ComparisonRow
from medtune.run_dir.directory import RunDir

NAMES = ["differences", "lengths", "loss", "learning_rate", "speed", "memory"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def drawn(shared_run: RunDir) -> dict[str, str]:
    return figures(shared_run)


def row(metric: str, difference: float, interval: tuple[float, float] | None) -> ComparisonRow:
    return ComparisonRow(metric, 1.0, 1.0 + difference, difference, interval, 0.1, 0.1, "better", None, 9, 3, "one-way")


def test_every_chart_is_an_image_with_a_name_and_a_description(drawn: dict[str, str]) -> None:
    assert list(drawn) == NAMES
    seen: set[str] = set()
    for name, text in drawn.items():
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        title, description = root[0], root[1]
        assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
        assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert title.text
        assert description.text
        ids = {str(element.get("id")) for element in root.iter() if element.get("id")}
        assert all(id.startswith(name) for id in ids)
        assert not ids & seen
        seen |= ids
        assert set(re.findall(r"(?:href=\"|url\()#([^\")]+)", text)) <= ids
        assert any(element.tag == f"{SVG}text" for element in root.iter())


def test_charts_bring_no_style_no_metadata_and_only_the_themes_colours(drawn: dict[str, str]) -> None:
    for text in drawn.values():
        assert not re.findall(r"<style|style=|metadata|rdf|matplotlib|\d{4}-\d\d-\d\d|DOCTYPE|<\?xml|/home|/tmp", text)
        bare = re.sub(r"var\(--chart-\w+, #\w+\)", "", text).replace(f'fill="{COLOURS["surface"]}"', "")
        assert re.findall(r"#[0-9a-f]{6}\b|black|rgb", bare) == []


def test_the_same_run_gives_the_same_charts(drawn: dict[str, str], shared_run: RunDir) -> None:
    assert figures(shared_run) == drawn


def test_in_the_page_a_chart_has_no_ground_and_no_size(data: ReportData) -> None:
    chart = draw_charts(data)["loss"]
    root = ElementTree.fromstring(to_svg(replace(chart, description="a < b & c")))
    assert root.get("width") is None
    assert root.get("viewBox")
    assert root[1].text == "a < b & c"
    assert root.find(f"{SVG}rect") is None


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


def test_a_long_history_is_drawn_by_its_means(data: ReportData) -> None:
    points = [(step, float(step % 2)) for step in range(100_000)]
    few = thinned(points)
    assert len(few) <= 400
    assert {value for _, value in few} == {0.5}
    assert thinned(points[:3]) == [(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]
    history = tuple(Step(step, loss=2.0 + math.sin(step), tokens_per_second=1.0) for step in range(1, 20_000))
    chart = draw_charts(replace(data, history=history))["loss"]
    assert len(to_svg(chart)) < 60_000


def test_histograms_end_where_the_cap_and_most_references_do() -> None:
    assert length_bars({"references": [100] * 20}, 200) == 24
    assert length_bars({"references": [100] * 50 + [390] * 50}, 200) == 39
    assert length_bars({"references": [10**9] * 9}, 200) == 80
    assert length_bars({}, 20) == 24


def test_memory_is_the_gpus_where_there_is_one() -> None:
    stages = {"data": {"peak_rss_bytes": 5}, "train": {"peak_rss_bytes": 7, "peak_gpu_bytes": None}}
    assert stage_peaks({"stages": stages}) == ({"data": 5, "train": 7}, False)
    stages["train"]["peak_gpu_bytes"] = 9
    assert stage_peaks({"stages": stages}) == ({"train": 9}, True)
    assert stage_peaks({}) == ({}, False)
