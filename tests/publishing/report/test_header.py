"""The page's head: what was run, when, with what and for how much; and what is not recorded says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from medtune.config.recipes import load_recipe, override, shipped_recipes
from medtune.publishing.report import ReportData
from medtune.publishing.report.header import describe_recipe, header_facts


def facts(data: ReportData, **provenance: Any) -> dict[str, str]:
    return dict(header_facts(replace(data, provenance={**data.provenance, **provenance})))


def test_what_a_run_was_made_of_is_in_a_few_lines(data: ReportData) -> None:
    stages = dict(data.provenance["stages"])
    stages["compare"] = {**stages["compare"], "ended": "2026-11-30T23:59:59+00:00"}
    found = facts(data, stages=stages, versions={"medtune": "0.2.0"})
    assert list(found) == ["Date", "medtune", "Recipe", "Model", "Data", "Hardware", "Cost"]
    assert found["Date"] == "30 November 2026"
    assert found["medtune"] == "0.2.0, commit 0123abcd"
    assert found["Recipe"] == "demo, 2 settings changed"
    assert found["Model"] == "medtune:demo, nf4"
    assert found["Data"] == "medtune:demo, tested on 12 questions in 6 groups"
    assert found["Hardware"] == "Tesla T4"
    # 1.5 s of data, 60 s twice, 2 s of controls, 30 s of training, 0.5 s of comparison.
    assert found["Cost"] == "training 30.0 s, peak 5.0 GiB on the GPU, whole run 2 min 34 s, 0.04 GPU-hours"


def test_what_is_not_recorded_says_so(data: ReportData) -> None:
    empty = dict(header_facts(replace(data, provenance={})))
    for name in ("Date", "medtune", "Hardware", "Cost"):
        assert empty[name] == "not recorded"
    odd = facts(data, hardware="?", versions=[], commit=None, stages={"compare": {"ended": "yesterday"}})
    assert (odd["Date"], odd["medtune"], odd["Hardware"]) == ("not recorded",) * 3
    assert odd["Cost"] == "whole run 0.0 s"
    assert dict(header_facts(replace(data, comparison=replace(data.comparison, rows=()))))["Data"].endswith(
        "tested on no questions"
    )


def test_hours_are_those_of_all_gpus_and_none_without_one(data: ReportData) -> None:
    gpus = [{"name": "H200"}, {"name": "H200"}, {"name": "T4"}]
    stages = {"train": {"seconds": 3600, "peak_gpu_bytes": 1 << 30}}
    found = facts(data, hardware={"gpus": gpus}, stages=stages)
    assert found["Hardware"] == "2 x H200, T4"
    assert found["Cost"].endswith("3.00 GPU-hours")
    found = facts(
        data,
        hardware={"gpus": [], "cpu_count": 2, "memory_bytes": 8 << 30},
        stages={"train": {"seconds": 3600, "peak_rss_bytes": 1 << 30}},
    )
    assert found["Hardware"] == "no GPU, 2 CPU cores, 8 GiB"
    assert found["Cost"] == "training 1 h 0 min, peak 1.0 GiB, whole run 1 h 0 min"


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_is_known_by_its_settings(name: str) -> None:
    config = load_recipe(name)
    assert describe_recipe(config) == name
    revision = {"model.revision": "c0ffee", "data.revision": "decade"}  # as found on the Hub
    assert describe_recipe(override(config, revision)) == name
    assert describe_recipe(override(config, {"lora.rank": 3})) == f"{name}, 1 setting changed"
    assert describe_recipe(override(config, {"model.base": "owner/other"})) == "of its own"
