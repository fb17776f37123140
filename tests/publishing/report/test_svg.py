"""A chart in a page: an image with a name, in the colours of the theme, without a style of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

from chart_texts import misplaced_texts
from medtune.publishing.report import ReportData
from medtune.publishing.report.charts import draw_charts
from medtune.publishing.report.svg import COLOURS, fit_text, text_width, to_svg

NAMES = ["differences", "lengths", "loss", "learning_rate", "speed", "memory"]
SVG = "{http://www.w3.org/2000/svg}"


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


def test_in_the_page_a_chart_has_no_ground_and_no_size(data: ReportData) -> None:
    chart = draw_charts(data)["loss"]
    root = ElementTree.fromstring(to_svg(replace(chart, description="a < b & c")))
    assert root.get("width") is None
    assert root.get("viewBox")
    assert root[1].text == "a < b & c"
    assert root.find(f"{SVG}rect") is None


def test_no_text_of_a_chart_is_clipped_or_on_another(drawn: dict[str, str]) -> None:
    assert {name: misplaced_texts(svg) for name, svg in drawn.items()} == {name: [] for name in NAMES}


def test_a_line_that_does_not_fit_ends_in_an_ellipsis() -> None:
    assert fit_text("short", 11, 100) == "short"
    cut = fit_text("a line that goes on " * 9, 11, 100)
    assert cut.endswith("…")
    assert text_width(cut, 11) <= 100
