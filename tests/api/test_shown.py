"""Results as text for terminals and as pages for notebooks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import medtune
from medtune.api.shown import Findings, ShownComparison
from medtune.pipeline.doctor.findings import Finding


def test_what_is_shown_is_the_terminals_table_and_escaped(finished: medtune.Run):
    shown = ShownComparison.of(replace(finished.comparison, names=("<i>one</i>", "two")))
    assert "<i>one</i>" in repr(shown)
    assert "95 % interval" in repr(shown)
    assert "\x1b" not in repr(shown)
    html = shown._repr_html_()
    assert "&lt;i&gt;one&lt;/i&gt;" in html
    assert "<i>" not in html
    page = finished._repr_html_()
    assert "rougeL" in page
    found = Findings([Finding("failure", "disk", "<b>full</b>", "make room")])
    assert "&lt;b&gt;full" in found._repr_html_()
    assert "make room" in repr(found)
    assert found.failures == list(found)


def test_plans_show_one_gpu_or_several(workplace: Path):
    assert "peak" in repr(medtune.plan("demo", "t4"))
    several = medtune.plan("demo")
    assert len(several.forecasts) > 1
    assert "What each GPU would do" in repr(several)
