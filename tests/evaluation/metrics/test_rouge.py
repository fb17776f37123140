from __future__ import annotations

from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from rouge_score.rouge_scorer import RougeScorer

from languages import LANGUAGES
from medtune.evaluation.metrics.metric import Answers
from medtune.evaluation.metrics.rouge import (
    OFFICIAL,
    ROUGE_METRICS,
    ROUGE_NAMES,
    UNICODE,
    Candidate,
    choose_tokenizer,
    one_sentence_a_line,
    rouge_f1,
    rouge_signature,
)
from medtune.evaluation.metrics.unicode_words import unicode_words
from medtune.records import Prediction


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


# Other scripts, and several references -------------------------------------------------------------------------------


class UnicodeWords:
    """Our words as rouge-score takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return unicode_words(text)


@pytest.mark.parametrize("name", LANGUAGES)
def test_other_scripts_equal_rouge_score_and_its_literals(name: str) -> None:
    language = LANGUAGES[name]
    assert choose_tokenizer("auto", language.references) == UNICODE
    ours = rouge_f1(language.answers, language.references, ROUGE_NAMES, tokenizer=UNICODE)
    scorer = RougeScorer(list(ROUGE_NAMES), tokenizer=UnicodeWords())
    for row, (answer, reference) in enumerate(zip(language.answers, language.references, strict=True)):
        official = scorer.score(reference, answer)
        assert {metric: values[row] for metric, values in ours.items()} == {
            metric: score.fmeasure for metric, score in official.items()
        }
    assert ours["rouge1"] == pytest.approx(language.rouge1)
    assert ours["rouge2"] == pytest.approx(language.rouge2)
    assert ours["rougeL"] == pytest.approx(language.rouge_l)


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("Gout hurts, says Ménière of his ear.", OFFICIAL),
        ("L'été dernier il avait mal aux oreilles.", OFFICIAL),
        ("", OFFICIAL),
        ("Bệnh tiểu đường là bệnh mãn tính.", OFFICIAL),
        ("Gout hurts: 痛风", UNICODE),
    ],
)
def test_another_tokenizer_where_a_twentieth_of_the_letters_is_not_latin(text: str, tokenizer: str) -> None:
    assert choose_tokenizer("auto", [text]) == tokenizer
    assert choose_tokenizer(UNICODE, [text]) == UNICODE
    assert choose_tokenizer(OFFICIAL, [text]) == OFFICIAL


def test_latin_letters_that_the_official_one_loses_are_told() -> None:
    rows = [Prediction("1", "", "Bệnh mãn tính.", "Bệnh mãn tính.")]
    own, _ = ROUGE_METRICS[0].measure(Answers(rows), ROUGE_METRICS[:1])
    assert "|tok:a-z0-9|" in own.signature
    assert own.details == {"tokenizer": "a-z0-9", "share_of_letters_unread": 3 / 11}
    own, _ = ROUGE_METRICS[0].measure(Answers(rows, rouge_tokenizer=UNICODE), ROUGE_METRICS[:1])
    assert "|tok:unicode-words|" in own.signature
    assert own.details == {}


def test_the_public_form_keeps_its_tokenizer_and_says_what_it_loses() -> None:
    rows = [Prediction(str(n), "", text, text) for n, text in enumerate(LANGUAGES["Russian"].references)]
    own, compat = ROUGE_METRICS[0].measure(Answers(rows), ROUGE_METRICS[:1])
    assert (own.value(), compat.value()) == (1.0, 0.0)
    assert "|tok:unicode-words|" in own.signature
    assert own.details == {}
    assert "|tok:a-z0-9|" in compat.signature
    assert compat.details == {"tokenizer": "a-z0-9", "share_of_letters_unread": 1.0}


def test_of_several_references_the_best_counts_as_in_rouge_score() -> None:
    answers = ["Gout hurts the joints.", "Flu is caused by a virus."]
    references = [("Gout causes pain in the joints.", "Gout hurts joints."), ("Influenza is caused by a virus.",)]
    rows = [Prediction(str(n), "", texts[0], answers[n], references=texts) for n, texts in enumerate(references)]
    wanted = ROUGE_METRICS[:3]
    own = [one for one in wanted[0].measure(Answers(rows), wanted) if one.metric.table == "standard"]
    scorer = RougeScorer([one.name for one in wanted], use_stemmer=True)
    official = [scorer.score_multi(texts, answer) for texts, answer in zip(references, answers, strict=True)]
    for measured in own:
        assert measured.rows[:, 0].tolist() == [scores[measured.name].fmeasure for scores in official]
        assert measured.signature == rouge_signature(measured.name) + "|nrefs:var|over-references:max"
    assert [measured.rows[0, 0] for measured in own] == pytest.approx([6 / 7, 2 / 5, 6 / 7])
