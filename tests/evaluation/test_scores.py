from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import sacrebleu

from medtune.config import MetricName
from medtune.errors import ConfigError, DataError
from medtune.evaluation.bertscore import Encoder
from medtune.evaluation.scores import METRICS, measure_rows, score_predictions, value_from_rows
from medtune.records import Prediction

CAPS = "max_new_tokens:512|decoding:greedy"
OFFLINE = tuple(metric for metric in METRICS if metric != "bertscore_f1")

MakePredictions = Callable[..., list[Prediction]]


def test_metrics_are_the_contract_in_its_order() -> None:
    contract = ("bleu", "rouge1", "rouge2", "rougeL", "rougeLsum", "bertscore_f1", "exact_match", "perplexity")
    assert contract == METRICS == get_args(MetricName)


def test_scores_every_metric(
    make_predictions: MakePredictions, predictions: list[str], references: list[str], minilm: Encoder
) -> None:
    scores = score_predictions(make_predictions(), METRICS, encoder=minilm, caps=CAPS)
    assert tuple(scores) == METRICS
    assert {score.n for score in scores.values()} == {4}
    assert scores["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score)
    assert scores["exact_match"].value == 0.25
    assert scores["perplexity"].value == pytest.approx(math.e)
    assert 0 < scores["rouge2"].value < scores["rougeL"].value <= scores["rouge1"].value < 1
    assert 0.5 < scores["bertscore_f1"].value < 0.75  # the empty row counts as 0


def test_signatures_carry_the_caps_where_text_is_read(make_predictions: MakePredictions, minilm: Encoder) -> None:
    scores = score_predictions(make_predictions(), METRICS, encoder=minilm, caps=CAPS)
    for metric, score in scores.items():
        assert score.signature.endswith(f"|{CAPS}") == (metric != "perplexity")
        assert "/" not in score.signature
    assert scores["perplexity"].signature == "perplexity:answer+end-token|aggregate:token"
    assert len({score.signature for score in scores.values()}) == len(METRICS)


def test_the_rows_determine_the_score_and_its_resamples(make_predictions: MakePredictions) -> None:
    rows = make_predictions()
    scores = score_predictions(rows, OFFLINE, encoder=None, caps=CAPS)
    picked = [3, 3, 0, 1]
    resampled = score_predictions([rows[i] for i in picked], OFFLINE, encoder=None, caps=CAPS)
    for metric, measured in measure_rows(rows, OFFLINE, encoder=None, caps=CAPS).items():
        assert len(measured.rows) == 4
        assert measured.value() == scores[metric].value
        assert measured.signature == scores[metric].signature
        assert value_from_rows(metric, measured.rows[np.array(picked)]) == pytest.approx(resampled[metric].value)


def test_one_row_and_empty_answers(make_predictions: MakePredictions) -> None:
    one = score_predictions(make_predictions()[3:], OFFLINE, encoder=None, caps="")
    assert one["bleu"].value == pytest.approx(100)
    assert one["rougeLsum"].value == one["exact_match"].value == 1
    assert one["bleu"].signature.endswith("version:" + sacrebleu.__version__)  # no caps, no dangling bar
    empty = score_predictions(make_predictions(["", " ", "\n", ""]), OFFLINE, encoder=None, caps=CAPS)
    assert {metric: score.value for metric, score in empty.items() if metric != "perplexity"} == dict.fromkeys(
        OFFLINE[:-1], 0.0
    )


def test_bad_requests_are_refused(make_predictions: MakePredictions) -> None:
    with pytest.raises(DataError, match="no predictions"):
        score_predictions([], ["bleu"], encoder=None, caps=CAPS)
    with pytest.raises(ConfigError, match="unknown rouge;"):
        score_predictions(make_predictions(), ["bleu", "rouge"], encoder=None, caps=CAPS)
    with pytest.raises(ConfigError, match="bertscore_f1 needs an encoder"):
        score_predictions(make_predictions(), ["bertscore_f1"], encoder=None, caps=CAPS)
