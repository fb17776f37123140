"""What every metric has to be, one that is added later too."""

from __future__ import annotations

import numpy as np
import pytest

from medtune.config.evaluation import EvaluationSection
from medtune.evaluation.metrics import METRIC_NAMES, METRICS, Metric, metric_named, needs_encoder


def test_metrics_are_the_contract_in_its_order() -> None:
    contract = ("bleu", "rouge1", "rouge2", "rougeL", "rougeLsum", "bertscore_f1", "exact_match", "perplexity")
    assert contract == METRIC_NAMES == EvaluationSection().metrics


def test_those_that_nobody_asks_for_come_with_one_that_can_be_asked_for() -> None:
    companions = {metric.name: metric.companion_of for metric in METRICS if metric.companion_of}
    assert companions == {
        "compat_bleu": "bleu",
        "compat_rouge1": "rouge1",
        "compat_rouge2": "rouge2",
        "compat_rougeL": "rougeL",
        "compat_rougeLsum": "rougeLsum",
        "bertscore_f1_rescaled": "bertscore_f1",
        "bits_per_byte": "perplexity",
    }
    assert all(metric_named(asked).measure is metric_named(name).measure for name, asked in companions.items())


def test_names_are_unique_and_the_standard_labels_too() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    labels = [metric.label for metric in METRICS if metric.table == "standard"]
    assert len(set(labels)) == len(labels)
    assert [metric.name for metric in METRICS if metric.table == "compat"] == [
        metric.name for metric in METRICS if metric.name.startswith("compat_")
    ]


def test_likelihoods_alone_are_better_when_lower() -> None:
    likelihoods = ["perplexity", "bits_per_byte"]
    assert [metric.name for metric in METRICS if metric.lower_is_better] == likelihoods
    assert [metric.name for metric in METRICS if not metric.reads_answers] == likelihoods
    assert [metric.name for metric in METRICS if metric.counts_tokens] == ["perplexity"]


def test_the_hubs_names() -> None:
    assert {metric.name: metric.hub_name for metric in METRICS if metric.hub_name} == {
        "bleu": "bleu",
        "rouge1": "rouge",
        "rouge2": "rouge",
        "rougeL": "rouge",
        "rougeLsum": "rouge",
        "bertscore_f1": "bertscore",
        "bertscore_f1_rescaled": "bertscore",
        "exact_match": "exact_match",
        "perplexity": "perplexity",
    }


def test_an_encoder_is_for_bertscore() -> None:
    assert not needs_encoder(name for name in METRIC_NAMES if name != "bertscore_f1")
    assert needs_encoder(METRIC_NAMES)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_value_for_each_resample(metric: Metric) -> None:
    assert metric.values(np.ones((3, len(metric.columns)))).shape == (3,)
    assert metric_named(metric.name) is metric


def test_a_metric_of_another_version_is_a_plain_mean() -> None:
    unknown = metric_named("unheard_of")
    assert (unknown.name, unknown.label, unknown.digits, unknown.lower_is_better) == (
        "unheard_of",
        "unheard_of",
        4,
        False,
    )
    assert unknown.values(np.array([[3.0, 2.0]])) == pytest.approx([1.5])
