from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest

from medtune.errors import DataError
from medtune.evaluation.bertscore import Encoder
from medtune.evaluation.comparison import compare_scores
from medtune.evaluation.reading import read_comparison
from medtune.evaluation.scores import METRICS, score_predictions
from medtune.records import ComparisonRow, Prediction

MakePredictions = Callable[..., list[Prediction]]
OFFLINE = [metric for metric in METRICS if metric != "bertscore_f1"]


def read(baseline: list[Prediction], tuned: list[Prediction]) -> str:
    scores = [score_predictions(side, OFFLINE, encoder=None, caps="") for side in (baseline, tuned)]
    return "\n".join(read_comparison(baseline, tuned, compare_scores(*scores)))


def compared(metric: str, baseline: float, tuned: float, n: int = 4) -> ComparisonRow:
    return ComparisonRow(metric, baseline, tuned, tuned - baseline, n, "one-way")


@pytest.fixture
def worse(predictions: list[str]) -> list[str]:
    return [text[: len(text) // 2] for text in predictions]


def test_improved(make_predictions: MakePredictions, worse: list[str]) -> None:
    text = read(make_predictions(worse, reference_nll=8.0), make_predictions(reference_nll=4.0))
    assert text.startswith("Both models answered the same 4 questions.")
    assert "Perplexity of the reference answers fell from 7.39 to 2.72, by a factor of 2.72" in text
    assert "wording more probability" in text
    assert re.search(r"^BLEU rose from \d+\.\d\d to 28\.59\.$", text, re.MULTILINE)
    assert re.search(r"^ROUGE-L F1 rose from 0\.\d{4} to 0\.5682\.$", text, re.MULTILINE)
    assert "0 of the baseline's and 1 of the tuned model's 4 answers equal" in text
    assert text.endswith("is no measure of medical correctness.")
    assert "Warning" not in text


def test_worse(make_predictions: MakePredictions, worse: list[str]) -> None:
    text = read(make_predictions(reference_nll=4.0), make_predictions(worse, reference_nll=8.0))
    assert "rose from 2.72 to 7.39, by a factor of 2.72" in text
    assert "wording less probability" in text
    assert "BLEU fell from 28.59" in text
    assert "ROUGE-L F1 fell from 0.5682" in text


def test_equal(make_predictions: MakePredictions) -> None:
    text = read(make_predictions(), make_predictions())
    assert text.count("did not change at the digits shown") == 3
    assert "precisions of 1- to 4-grams did not change" in text
    assert "answer length multiplied BLEU by 1.00, phrase match by 1.00" in text
    assert not re.search(r"\b(rose|fell)\b", text)


def test_bertscore_is_read_where_measured(make_predictions: MakePredictions, worse: list[str], minilm: Encoder) -> None:
    sides = make_predictions(worse), make_predictions()
    scores = [score_predictions(side, ["bertscore_f1"], encoder=minilm, caps="") for side in sides]
    sentences = read_comparison(*sides, compare_scores(*scores))
    assert len([line for line in sentences if line.startswith("BERTScore F1 rose from 0.")]) == 1
    assert not any("BLEU" in line or "Perplexity" in line for line in sentences)


def test_bleu_by_length_alone_is_told_from_phrase_match(make_prediction: Callable[..., Prediction]) -> None:
    reference = "one two three four five six seven eight"
    baseline = [make_prediction("one two three four", reference)]
    text = read(baseline, [make_prediction(reference, reference)])
    ratio = 100 / (100 * math.exp(1 - 8 / 4))
    assert f"answer length multiplied BLEU by {ratio:.2f}, phrase match by 1.00" in text
    assert "from 0.50 to 1.00 times the references'" in text
    assert "brevity penalty went from 0.368 to 1.000" in text
    assert "same 1 question." in text
    longer = [make_prediction(reference.replace("eight", "nine ten"), reference)]
    text = read([make_prediction(reference, reference)], longer)
    assert "precisions of 1- to 4-grams fell (100.0/100.0/100.0/100.0 % before, 77.8/75.0/71.4/66.7 % after)" in text
    assert "answer length multiplied BLEU by 1.00, phrase match by 0.73" in text


def test_uneven_precisions(make_prediction: Callable[..., Prediction]) -> None:
    reference = "a b c d e f g h"
    text = read([make_prediction("a b c d x y z w", reference)], [make_prediction("b a d c f e h g", reference)])
    assert "precisions of 1- to 4-grams moved unevenly" in text


def test_zeros(make_predictions: MakePredictions) -> None:
    text = read(make_predictions([""] * 4, new_tokens=1), make_predictions(["x"] * 4))
    assert "a BLEU of 0 cannot be split into factors" in text
    assert "ROUGE-L F1 did not change at the digits shown (0.0000)" in text
    assert "No answer of either model equals its reference" in text
    assert "took 1.0 new tokens on average before and 10.0 after" in text


@pytest.mark.parametrize(
    ("baseline", "tuned", "expected"),
    [
        (math.inf, 5.0, "fell from inf to 5.00: the tuned"),
        (5.0, math.inf, "rose from 5.00 to inf: the tuned"),
        (math.inf, math.inf, "cannot be compared: inf for the baseline, inf for the tuned model"),
        (math.nan, 5.0, "cannot be compared: nan for the baseline, 5.00 for the tuned model"),
        (2.0, 0.0, "fell from 2.00 to 0.00: the tuned"),
    ],
)
def test_perplexities_that_have_no_factor(
    make_predictions: MakePredictions, baseline: float, tuned: float, expected: str
) -> None:
    rows = make_predictions()
    (sentence,) = [
        line
        for line in read_comparison(rows, rows, [compared("perplexity", baseline, tuned)])
        if line.startswith("Perplexity")
    ]
    assert expected in sentence
    assert "factor" not in sentence


def test_scores_that_are_no_numbers(make_predictions: MakePredictions) -> None:
    rows = make_predictions()
    names = ("bleu", "rougeL", "bertscore_f1", "exact_match")
    text = "\n".join(read_comparison(rows, rows, [compared(name, math.nan, 0.5) for name in names]))
    assert text.count("cannot be compared: nan for the baseline") == 4


@pytest.mark.parametrize(
    ("cut", "warned"), [((0, 0), ""), ((1, 1), ""), ((2, 1), "baseline,"), ((0, 2), "tuned model,"), ((2, 20), "both")]
)
def test_the_cap_is_told_and_warned_of_above_five_percent(
    make_prediction: Callable[..., Prediction], cut: tuple[int, int], warned: str
) -> None:
    sides = [
        [
            make_prediction(id=f"row-{i}", new_tokens=10 + i, finish_reason="length" if i < count else "stop")
            for i in range(20)
        ]
        for count in cut
    ]
    text = "\n".join(read_comparison(sides[0], sides[1], []))
    assert f"cut {cut[0] / 20:.1%} of the answers before and {cut[1] / 20:.1%} after" in text
    assert "19.5 new tokens on average before and 19.5 after" in text
    assert ("Warning" in text) == bool(warned)
    assert (warned or "").replace("both", "baseline and the tuned model,") in text


def test_unlike_rows_are_refused_and_none_are_survived(make_predictions: MakePredictions) -> None:
    with pytest.raises(DataError, match="same rows"):
        read_comparison(make_predictions(), make_predictions()[::-1], [])
    assert len(read_comparison([], [], [])) == 2
