"""Histograms of lengths: as far as the cap and most references."""

from __future__ import annotations

from medtune.publishing.report.length_charts import length_bars


def test_histograms_end_where_the_cap_and_most_references_do() -> None:
    assert length_bars({"references": [100] * 20}, 200) == 24
    assert length_bars({"references": [100] * 50 + [390] * 50}, 200) == 39
    assert length_bars({"references": [10**9] * 9}, 200) == 80
    assert length_bars({}, 20) == 24
