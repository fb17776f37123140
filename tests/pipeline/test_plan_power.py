"""What `medtune plan` says of the test set: from a table, or from a baseline that is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.data import medquad_lengths as medquad
from medtune.evaluation.power import CORRELATION, detectable_by_table
from medtune.pipeline.plan import assumed_sizes
from medtune.pipeline.plan_power import Power, expected_power, no_verdict
from report_runs import compared_run


def test_without_a_baseline_medquads_table_tells():
    config = load_recipe("llama3-8b-t4")
    rows = assumed_sizes(config)
    power = expected_power(config, rows)
    assert power is not None
    assert power.rows == 200
    assert 100 < power.groups < 200
    assert power.detectable == detectable_by_table(["rougeL", "bertscore_f1", "perplexity"], power.groups, tests=3)
    more = expected_power(*_of("llama3-8b-24gb"))
    assert more.detectable["rougeL"] < power.detectable["rougeL"]


def _of(recipe: str):
    config = load_recipe(recipe)
    return config, assumed_sizes(config)


def test_of_rows_that_nobody_knows_nothing_is_told():
    config = load_recipe("llama3-8b-t4", ["data.source=owner/rows"])
    assert expected_power(config, assumed_sizes(config)) is None
    known = load_recipe("llama3-8b-t4")
    assert expected_power(known, replace(assumed_sizes(known), groups=1.0)) is None


def test_a_baseline_that_is_there_is_the_pilot(tmp_path: Path):
    run = compared_run(tmp_path / "run", settings=["evaluation.resamples=500"])
    power = expected_power(run.config, assumed_sizes(load_recipe("llama3-8b-t4")), run.path)
    assert power is not None
    assert (power.rows, power.groups) == (12, 6)
    assert f"baseline's answers in {run.path}, if those of both models correlate by {CORRELATION:g}" in power.sentence
    # A folder without a run is a run that is yet to be made.
    assert expected_power(*_of("llama3-8b-t4"), tmp_path / "new") == expected_power(*_of("llama3-8b-t4"))


def test_the_sentence_names_each_metric_in_its_own_units():
    power = Power({"rougeL": 0.0123, "perplexity": 0.456}, 200, 113.6, "a guess")
    assert power.sentence == (
        "smallest difference that 200 test rows, which count as about 114 groups, can show: 0.0123 (ROUGE-L F1) and "
        "0.46 (perplexity); with 80 % power, by a guess"
    )


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (4.2, "no verdict is to be expected: the test rows count as about 4 groups, and a verdict takes 7 at least"),
        (1.0, "no verdict is to be expected: the test rows count as about 1 group, and a verdict takes 6 at least"),
        (8.0, "no verdict on ROUGE-L F1 and BERTScore F1 is to be expected: tuning seldom brings a difference of 0.13"),
        (60.0, None),
    ],
)
def test_a_test_set_that_can_show_nothing_says_what_to_raise(groups: float, reason: str | None):
    config = load_recipe("llama3-8b-t4")
    rows = replace(assumed_sizes(config), groups=groups)
    fix = "raise data.split.test or evaluation.max_examples, or take rows on more topics"
    assert no_verdict(rows, expected_power(config, rows)) == (None if reason is None else f"{reason}; {fix}")


def test_a_figure_that_is_another_metrics_says_so():
    power = expected_power(*_of("llama3-8b-t4"))
    assert power is not None
    assert power.sentence.endswith("so a rough guide; BERTScore's is the figure of ROUGE-L, as an upper guess")


@pytest.mark.parametrize("recipe", ["llama3-8b-t4", "llama3-8b-24gb", "llama3-8b-80gb", "smollm2-135m"])
def test_shipped_recipes_of_medquad_are_planned_from_the_package_alone(recipe: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments, **options):
        raise AssertionError("asked the Hub")

    from medtune.pipeline import plan as planning

    monkeypatch.setattr("medtune.model.loading.fetch_snapshot", refuse)
    found, rows = planning.forecasts(load_recipe(recipe), "l4")
    assert found["l4"].training_seconds > 5
    assert load_recipe(recipe).data.source == medquad.SOURCE
    assert "as they come with the package" in rows.origin
