"""The best control: the strongest rival by a metric, and never the ceiling."""

from __future__ import annotations

import math

from comparisons import row
from medtune.evaluation.headline import best_control
from medtune.records import Comparison, Control, ControlName, Score


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
