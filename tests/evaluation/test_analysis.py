from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest

from comparisons import OFFLINE, compare, of_rows, read, row
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.encoder import Encoder
from medtune.records import Comparison, Prediction, Verdict

MakePredictions = Callable[..., list[Prediction]]
MakePrediction = Callable[..., Prediction]


@pytest.fixture
def worse(predictions: list[str]) -> list[str]:
    return [text[: len(text) // 2] for text in predictions]


def sentence_about(comparison: Comparison, start: str) -> str:
    (sentence,) = [line for line in reading_of(comparison).sentences if line.startswith(start)]
    return sentence


def test_improved(make_predictions: MakePredictions, worse: list[str]) -> None:
    text = read(make_predictions(worse, reference_nll=8.0) * 2, make_predictions(reference_nll=4.0) * 2)
    assert "On 8 questions in 8 groups the tuned model, against the baseline, is better by " in text
    assert "Perplexity of the reference answers fell from 7.39 to 2.72, by a factor of 2.72" in text
    assert "the tuned model gives the references' wording more probability" in text
    assert "0 of the baseline's and 2 of the tuned model's 8 answers equal their reference" in text
    assert text.endswith("is no measure of medical correctness.")


def test_worse(make_predictions: MakePredictions, worse: list[str]) -> None:
    text = read(make_predictions(reference_nll=4.0) * 2, make_predictions(worse, reference_nll=8.0) * 2)
    assert "rose from 2.72 to 7.39, by a factor of 2.72" in text
    assert "wording less probability" in text
    assert re.search(r"\bworse by\b.*perplexity", text)


def test_equal(make_predictions: MakePredictions) -> None:
    text = read(make_predictions() * 2, make_predictions() * 2)
    assert "Perplexity of the reference answers did not change at the digits shown (2.72)" in text
    assert "equivalent within the margins" in text
    assert "answer length multiplied BLEU by 1.00, phrase match by 1.00" in text
    assert "Perplexity differs by 0.00, 97.5 % interval [0.00, 0.00], which is within the margin of ± 0.1." in text
    assert not re.search(r"\b(rose|fell|better|worse)\b", text)


def test_bertscore_is_read_where_measured(make_predictions: MakePredictions, minilm: Encoder) -> None:
    comparison = compare(make_predictions(["x"] * 4), make_predictions(), metrics=["bertscore_f1"], encoder=minilm)
    sentences = reading_of(comparison).sentences
    assert "BERTScore F1" in sentences[1]
    assert not any("BLEU" in line or "erplexity" in line for line in sentences)


def test_bleu_by_length_alone_is_told_from_phrase_match(make_prediction: MakePrediction) -> None:
    reference = "one two three four five six seven eight"
    baseline = [make_prediction("one two three four", reference)]
    text = read(baseline, [make_prediction(reference, reference)])
    ratio = 100 / (100 * math.exp(1 - 8 / 4))
    assert f"answer length multiplied BLEU by {ratio:.2f}, phrase match by 1.00" in text
    assert "from 0.50 to 1.00 times the references'" in text
    assert "brevity penalty went from 0.368 to 1.000" in text
    longer = [make_prediction(reference.replace("eight", "nine ten"), reference)]
    text = read([make_prediction(reference, reference)], longer)
    assert "precisions of 1- to 4-grams went from 100.0/100.0/100.0/100.0 % to 77.8/75.0/71.4/66.7 %" in text
    assert "answer length multiplied BLEU by 1.00, phrase match by 0.73" in text


def test_nothing_rises_that_chance_explains() -> None:
    unclear = sentence_about(of_rows(row("perplexity", 5.0, 5.5, "cannot tell")), "Perplexity of")
    assert unclear.endswith("went from 5.00 to 5.50, by a factor of 1.10, which is not told from chance.")
    assert "rose" in sentence_about(of_rows(row("perplexity", 5.0, 5.5, "worse")), "Perplexity of")


def test_zeros(make_predictions: MakePredictions) -> None:
    text = read(make_predictions([""] * 4, new_tokens=1), make_predictions(["x"] * 4))
    assert "a BLEU of 0 cannot be split into factors" in text
    assert "No answer of either model equals its reference" in text
    assert "took 1.0 new tokens on average before and 10.0 after" in text


@pytest.mark.parametrize(
    ("baseline", "tuned", "expected"),
    [
        (math.inf, 5.0, "went from inf to 5.00, which is not told from chance."),
        (5.0, math.inf, "went from 5.00 to inf, which is not told from chance."),
        (math.inf, math.inf, "cannot be compared: inf for the baseline, inf for the tuned model"),
        (math.nan, 5.0, "cannot be compared: nan for the baseline, 5.00 for the tuned model"),
        (2.0, 0.0, "went from 2.00 to 0.00, which"),
    ],
)
def test_perplexities_that_have_no_factor(baseline: float, tuned: float, expected: str) -> None:
    sentence = sentence_about(of_rows(row("perplexity", baseline, tuned, "undefined")), "Perplexity")
    assert expected in sentence
    assert "factor" not in sentence


def test_one_row_reads_as_one(make_prediction: MakePrediction) -> None:
    row_alone = [make_prediction("Gout.", "Gout.", finish_reason=None, reference_nll=None, reference_tokens=None)]
    metrics = [metric for metric in OFFLINE if metric != "perplexity"]
    text = "\n".join(reading_of(compare(row_alone, row_alone, metrics=metrics)).sentences)
    assert "On 1 question in 1 group the tuned model, against the baseline, is not comparable by ROUGE-L F1" in text
    assert "1 of the baseline's and 1 of the tuned model's 1 answer equals its reference" in text
    assert "which 1 row cannot tell" in "\n".join(
        reading_of(of_rows(row("bleu", 1, 1, "cannot tell", n=1, groups=1))).sentences
    )
    assert_grammatical(text)


def test_what_files_do_not_tell_is_not_told(make_predictions: MakePredictions) -> None:
    untold = make_predictions(new_tokens=None, finish_reason=None)
    text = read(untold, untold)
    assert "new tokens" not in text
    half = make_predictions(finish_reason=None)
    assert "Answers took 10.0 new tokens" in read(half, half)
    assert "The cap" not in read(half, half)


@pytest.mark.parametrize("loss", [4.0, math.inf, math.nan, 1e5])
@pytest.mark.parametrize("texts", [None, ["", "", "", ""]])
def test_sentences_hold_together_whatever_the_numbers(
    make_predictions: MakePredictions, loss: float, texts: list[str] | None
) -> None:
    for sides in ((4.0, loss), (loss, 4.0), (loss, loss)):
        before, after = (make_predictions(texts, reference_nll=nll, group="one") for nll in sides)
        assert_grammatical(read(before, after))
        before, after = (make_predictions(texts, reference_nll=nll) for nll in sides)
        assert_grammatical(read(before, after))


def assert_grammatical(text: str) -> None:
    for sentence in text.split("\n"):
        assert sentence.endswith(".")
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert not re.search(
            r"  |None|\[\]|\(\)|, \.|: \.| \.|\.\.|-inf, |\b1 (rows|groups|questions|answers)\b", sentence
        )


@pytest.mark.parametrize(
    ("words", "meaning", "conclusion"),
    [
        ("better", "better", "came closer to the references in their words, and by the encoder's vectors."),
        ("better", "worse", "more of the references' words in answers that the encoder finds further off."),
        ("cannot tell", "better", "vectors, without more of the references' words."),
        ("undefined", "cannot tell", "neither words nor the encoder's vectors moved by more than"),
    ],
)
def test_words_and_meaning_are_read_together(words: Verdict, meaning: Verdict, conclusion: str) -> None:
    comparison = of_rows(row("rougeL", 0.2, 0.3, words), row("bertscore_f1", 0.6, 0.7, meaning))
    sentence = sentence_about(comparison, "ROUGE-L F1 (shared words in order) went from 0.2000 to 0.3000 and BERTScore")
    assert conclusion in sentence
    assert not [
        line for line in reading_of(of_rows(row("rougeL", 0.2, 0.3))).sentences if "shared words in order" in line
    ]
