from __future__ import annotations

from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from rouge_score.rouge_scorer import RougeScorer

from medtune.evaluation.metrics.rouge import ROUGE_NAMES, Candidate, one_sentence_a_line, rouge_f1, rouge_signature


def official_mean(
    metric: str, predictions: list[str], references: list[str], *, stemmer: bool = True, field: str = "fmeasure"
) -> float:
    scorer = RougeScorer([metric], use_stemmer=stemmer)
    scores = [scorer.score(r, p)[metric] for p, r in zip(predictions, references, strict=True)]
    return sum(getattr(score, field) for score in scores) / len(scores)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# Inflections for the stemmer, repeated words for clipping, what the tokenizer drops, and breaks of lines and sentences.
PIECES = [
    "heart",
    "hearts",
    "running",
    "runs",
    "a",
    "the",
    "the",
    "naïve",
    "日本",
    "38",
    "x-ray",
    ". ",
    "? ",
    "\n",
    "\r\n",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join) | st.text(max_size=40)


@given(TEXTS, TEXTS)
def test_stemmed_rows_equal_rouge_score_exactly(prediction: str, reference: str) -> None:
    ours = rouge_f1([prediction], [reference], ROUGE_NAMES)
    flat = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(reference, prediction)
    lines = one_sentence_a_line(reference), one_sentence_a_line(prediction)
    official = flat | RougeScorer(["rougeLsum"], use_stemmer=True).score(*lines)
    assert {metric: values[0] for metric, values in ours.items()} == {
        metric: score.fmeasure for metric, score in official.items()
    }


@given(TEXTS, TEXTS)
def test_unstemmed_rows_equal_rouge_score_exactly_on_raw_lines(prediction: str, reference: str) -> None:
    ours = rouge_f1([prediction], [reference], ROUGE_NAMES, stemmer=False)
    official = RougeScorer(list(ROUGE_NAMES), use_stemmer=False).score(reference, prediction)
    assert {metric: values[0] for metric, values in ours.items()} == {
        metric: score.fmeasure for metric, score in official.items()
    }


@pytest.mark.parametrize(
    ("metric", "literal"), [("rouge1", 0.6363636363636365), ("rouge2", 0.525), ("rougeL", 0.5681818181818182)]
)
def test_equals_rouge_score_and_its_literal(
    metric: str, literal: float, predictions: list[str], references: list[str]
) -> None:
    value = mean(rouge_f1(predictions, references, [metric])[metric])
    assert value == pytest.approx(official_mean(metric, predictions, references), abs=1e-12)
    assert value == pytest.approx(literal, abs=1e-9)
    assert value != pytest.approx(official_mean(metric, predictions, references, stemmer=False), abs=1e-3)


def test_is_f1_and_neither_recall_nor_precision(predictions: list[str], references: list[str]) -> None:
    value = mean(rouge_f1(predictions, references, ["rouge1"])["rouge1"])
    for field in ("precision", "recall"):
        assert value != pytest.approx(official_mean("rouge1", predictions, references, field=field), abs=1e-3)


def test_lsum_reads_sentences_and_not_raw_text(predictions: list[str], references: list[str]) -> None:
    by_hand = [
        "Diabetes causes swelling.\nPatients are treated with insulin injections.",
        "The doctors recommended resting and drinking water.\nSee a Doctor.",
        "",
        predictions[3],
    ]
    references_by_hand = [
        "Patients were treated with an insulin injection.\nDiabetes caused swellings of the feet.",
        *references[1:],
    ]
    value = mean(rouge_f1(predictions, references, ["rougeLsum"])["rougeLsum"])
    assert value == pytest.approx(official_mean("rougeLsum", by_hand, references_by_hand), abs=1e-12)
    assert value == pytest.approx(0.6363636363636365, abs=1e-9)
    assert value > official_mean("rougeLsum", predictions, references) + 0.05
    assert value != pytest.approx(official_mean("rougeLsum", by_hand, references_by_hand, stemmer=False), abs=1e-3)


@pytest.mark.parametrize(
    ("metric", "literal"),
    [("rouge1", 0.5), ("rouge2", 0.375), ("rougeL", 0.4772727272727273), ("rougeLsum", 0.4772727272727273)],
)
def test_the_form_of_public_write_ups(
    metric: str, literal: float, predictions: list[str], references: list[str]
) -> None:
    """Neither stems nor split sentences: what rouge-score says of the raw text."""
    value = mean(rouge_f1(predictions, references, [metric], stemmer=False)[metric])
    assert value == pytest.approx(official_mean(metric, predictions, references, stemmer=False), abs=1e-12)
    assert value == pytest.approx(literal, abs=1e-9)


def test_lsum_of_write_ups_breaks_at_newlines_alone() -> None:
    lines = "cough follows\nfever rises", "fever rises\ncough follows"
    values = rouge_f1(list(lines), list(lines[::-1]), ["rougeL", "rougeLsum"], stemmer=False)
    assert values == {"rougeL": [0.5, 0.5], "rougeLsum": [1.0, 1.0]}
    sentences = "Cough follows. Fever rises.", "Fever rises. Cough follows."
    values = rouge_f1(list(sentences), list(sentences[::-1]), ["rougeL", "rougeLsum"], stemmer=False)
    assert values == {"rougeL": [0.5, 0.5], "rougeLsum": [0.5, 0.5]}


def test_lsum_splits_the_reference_and_the_prediction() -> None:
    two, one = "Fever rises. Cough follows.", "cough follows fever rises"
    for prediction, reference in ((one, two), (two, one)):
        values = rouge_f1([prediction], [reference], ["rougeL", "rougeLsum"])
        assert values == {"rougeL": [0.5], "rougeLsum": [1.0]}


def test_metrics_asked_together_equal_metrics_asked_alone(predictions: list[str], references: list[str]) -> None:
    together = rouge_f1(predictions, references, ROUGE_NAMES)
    assert list(together) == list(ROUGE_NAMES)
    for metric in ROUGE_NAMES:
        assert together[metric] == rouge_f1(predictions, references, [metric])[metric]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Dr. Smith took 2.5 mg. It worked!", ["Dr. Smith took 2.5 mg.", "It worked!"]),
        ("one line\r\nanother, e.g. this\n\n \n- last.", ["one line", "another, e.g. this", "- last."]),
        ("One. Two? Three", ["One.", "Two?", "Three"]),
        ("Fieber über 38 °C.\u2028Naïve.", ["Fieber über 38 °C.", "Naïve."]),
        (" \n\t", [""]),
        ("", [""]),
    ],
)
def test_one_sentence_a_line(text: str, lines: list[str]) -> None:
    assert one_sentence_a_line(text).split("\n") == lines


@pytest.mark.parametrize("metric", ROUGE_NAMES)
def test_empty_texts_score_zero(metric: str) -> None:
    assert rouge_f1(["", " \n", "word", "日本"], ["word", "word", "", "日本"], [metric])[metric] == [0, 0, 0, 0]
    assert rouge_f1([], [], [metric])[metric] == []


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        rouge_f1(["one", "two"], ["one"], ["rouge1"])
    with pytest.raises(ValueError, match="rouge9"):
        rouge_f1(["one"], ["one"], ["rouge9"])


def test_signatures() -> None:
    own, sentences = version("rouge-score"), version("sentencex")
    assert rouge_signature("rougeL") == f"rouge-score:{own}|metric:rougeL|tok:a-z0-9|stemmer:yes|aggregate:mean-f1"
    assert rouge_signature("rougeLsum").endswith(f"|stemmer:yes|sentences:sentencex:{sentences}|aggregate:mean-f1")
    assert rouge_signature("rougeL", stemmer=False).endswith("|stemmer:no|aggregate:mean-f1")
    assert rouge_signature("rougeLsum", stemmer=False).endswith("|stemmer:no|sentences:lines|aggregate:mean-f1")
    signatures = {rouge_signature(metric, stemmer=stemmer) for metric in ROUGE_NAMES for stemmer in (True, False)}
    assert len(signatures) == 2 * len(ROUGE_NAMES)


TOKENS = st.lists(st.sampled_from("abcd"), max_size=40)


@given(TOKENS, TOKENS)
def test_length_equals_the_table(reference: list[str], candidate: list[str]) -> None:
    assert Candidate(candidate).length(reference) == rouge_scorer._lcs_table(reference, candidate)[-1][-1]


@given(TOKENS, TOKENS)
def test_of_several_subsequences_it_is_rouge_scores(reference: list[str], candidate: list[str]) -> None:
    matched = Candidate(candidate).matched(reference)
    assert matched[::-1] == rouge_scorer.lcs_ind(reference, candidate)


def test_a_tie_goes_back_along_the_reference() -> None:
    # Both "a" and "b" are longest; rouge-score keeps the reference's earlier token.
    assert Candidate(["b", "a"]).matched(["a", "b"]) == [0]
    assert Candidate(["b", "a"]).length(["a", "b"]) == 1


def test_nothing_shared_and_nothing_there() -> None:
    for candidate, reference in (([], ["a"]), (["a"], []), ([], []), (["a"], ["b"])):
        assert Candidate(candidate).length(reference) == 0
        assert Candidate(candidate).matched(reference) == []


def test_beyond_the_bits_of_a_machine_word() -> None:
    candidate = [str(number) for number in range(300)]
    assert Candidate(candidate).length(candidate[::2]) == 150
    assert Candidate(candidate).matched(candidate[::3]) == list(range(99, -1, -1))


def test_one_candidate_serves_many_references() -> None:
    candidate = Candidate(["a", "b", "c"])
    assert [candidate.length(list(text)) for text in ("abc", "cba", "ac", "")] == [3, 1, 2, 0]
