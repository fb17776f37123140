"""The headline of files that nobody tuned; the best control: the strongest rival by a metric, never the ceiling."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from comparisons import row
from medtune.evaluation.headline import best_control, headline
from medtune.records import Comparison, Control, ControlName, Score, Verdict


@pytest.mark.parametrize(
    ("verdict", "of_files", "of_run"),
    [
        ("better", "ours beats theirs by BLEU.", "Tuning helped: the tuned model beats the baseline by BLEU."),
        (
            "worse",
            "ours is worse than theirs by BLEU.",
            "Tuning hurt: the tuned model is worse than the baseline by BLEU.",
        ),
    ],
)
def test_answers_that_nobody_tuned_are_not_said_to_be_tuned(verdict: Verdict, of_files: str, of_run: str) -> None:
    run = Comparison((row("bleu", 1.0, 2.0, verdict),), {}, {})
    assert headline(run).startswith(of_run)
    assert headline(replace(run, names=("theirs", "ours"))) == of_files


def with_controls(metric: str, values: dict[ControlName, float]) -> Comparison:
    controls = tuple(
        Control(name, name, {metric: Score(value, 9, "one-way", 3, None)}, ()) for name, value in values.items()
    )
    return Comparison((row(metric, 1.0, 2.0),), {}, {}, controls=controls)


def test_the_best_control_is_that_by_the_metrics_own_direction() -> None:
    values: dict[ControlName, float] = {"few_shot": 3.0, "random_answer": 5.0, "nearest_question": math.nan}
    assert best_control(with_controls("bleu", values), "bleu") == ("random_answer", 5.0)
    assert best_control(with_controls("perplexity", values), "perplexity") == ("few_shot", 3.0)


def test_neither_the_ceiling_nor_the_tuned_model_itself_is_one() -> None:
    values: dict[ControlName, float] = {"cut_reference": 100.0, "tuned_retrieval": 50.0, "retrieval": 4.0}
    assert best_control(with_controls("bleu", values), "bleu") == ("retrieval", 4.0)
    del values["retrieval"]
    assert best_control(with_controls("bleu", values), "bleu") is None
    assert best_control(with_controls("bleu", {"few_shot": 3.0}), "rougeL") is None
