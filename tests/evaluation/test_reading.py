from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from medtune.evaluation.comparison import compare_measured
from medtune.evaluation.controls import DESCRIPTIONS
from medtune.evaluation.encoder import Encoder
from medtune.evaluation.lengths import answer_lengths, reference_lengths
from medtune.evaluation.metrics import METRIC_NAMES
from medtune.evaluation.reading import read_comparison, reading_of
from medtune.evaluation.scores import measure_rows, score_rows
from medtune.evaluation.significance import Resamples
from medtune.records import (
    Comparison,
    ComparisonRow,
    Control,
    ControlName,
    Lengths,
    Prediction,
    ReferenceLengths,
    Stratum,
    Verdict,
)

MakePredictions = Callable[..., list[Prediction]]
MakePrediction = Callable[..., Prediction]
OFFLINE = [metric for metric in METRIC_NAMES if metric != "bertscore_f1"]
NO_LENGTHS = Lengths(None, None, 1.0, None, None)


def compare(
    baseline: list[Prediction],
    tuned: list[Prediction],
    *,
    metrics: Sequence[str] = OFFLINE,
    encoder: Encoder | None = None,
    cap: int = 512,
) -> Comparison:
    measured = [measure_rows(side, metrics, encoder=encoder, caps="") for side in (baseline, tuned)]
    drawn = Resamples.draw([row.group for row in baseline], resamples=200, seed=0)
    return Comparison(
        rows=tuple(compare_measured(*measured, drawn)),
        scores={"baseline": score_rows(measured[0], drawn), "tuned": score_rows(measured[1], drawn)},
        lengths={"baseline": answer_lengths(baseline), "tuned": answer_lengths(tuned)},
        references=reference_lengths(baseline, cap),
    )


def read(baseline: list[Prediction], tuned: list[Prediction]) -> str:
    return "\n".join(read_comparison(compare(baseline, tuned)))


def row(metric: str, baseline: float, tuned: float, verdict: Verdict = "better", **changes: object) -> ComparisonRow:
    fields: dict[str, object] = {
        "metric": metric,
        "baseline": baseline,
        "tuned": tuned,
        "difference": tuned - baseline,
        "ci95": None if verdict == "undefined" else (tuned - baseline - 0.1, tuned - baseline + 0.1),
        "p_value": 0.01,
        "p_adjusted": 0.04,
        "verdict": verdict,
        "rows_needed": None,
        "n": 500,
        "groups": 300,
        "signature": "one-way",
    }
    return ComparisonRow(**(fields | changes))  # type: ignore[arg-type]


def of_rows(*rows: ComparisonRow, **changes: object) -> Comparison:
    fields: dict[str, object] = {
        "rows": rows,
        "scores": {"baseline": {}, "tuned": {}},
        "lengths": {"baseline": NO_LENGTHS, "tuned": NO_LENGTHS},
    }
    return Comparison(**(fields | changes))  # type: ignore[arg-type]


def control(name: ControlName, *rows: ComparisonRow) -> Control:
    return Control(name, DESCRIPTIONS[name], {}, rows)


@pytest.fixture
def worse(predictions: list[str]) -> list[str]:
    return [text[: len(text) // 2] for text in predictions]


@pytest.fixture
def sentence_about() -> Callable[[Comparison, str], str]:
    def find(comparison: Comparison, start: str) -> str:
        (sentence,) = [line for line in read_comparison(comparison) if line.startswith(start)]
        return sentence

    return find


Find = Callable[[Comparison, str], str]


# The verdict --------------------------------------------------------------------------------------------------------


def test_the_verdict_comes_first_with_its_n_and_groups() -> None:
    comparison = of_rows(
        row("bleu", 5, 9),
        row("rougeL", 0.2, 0.1, "worse"),
        row("rouge1", 0.2, 0.3),
        row("exact_match", 0, 0, "not distinguishable"),
        row("perplexity", math.inf, math.inf, "undefined"),
        row("compat_bleu", 0.05, 0.09, table="compat"),
    )
    assert read_comparison(comparison)[0] == (
        "On 500 questions in 300 groups the tuned model, against the baseline, is better by BLEU and ROUGE-1 F1; "
        "worse by ROUGE-L F1; not distinguishable by exact match; not comparable by perplexity "
        "(Holm-corrected p < 0.05)."
    )


def test_what_is_unclear_says_how_far_it_is_from_clear() -> None:
    unclear = row("bleu", 5, 5.25, "not distinguishable", rows_needed=12_345)
    sentences = read_comparison(of_rows(unclear, row("rouge1", 0.2, 0.2, "not distinguishable", rows_needed=999)))
    assert (
        "BLEU differs by +0.25, 95 % interval [+0.15, +0.35], which 500 rows cannot tell from chance; a true "
        "difference of that size would take about 12,345 rows to find."
    ) in sentences
    assert not any("999" in sentence for sentence in sentences)  # no headline metric
    text = "\n".join(read_comparison(of_rows(replace(unclear, rows_needed=None, ci95=None))))
    assert "BLEU differs by +0.25, which 500 rows cannot tell from chance.\n" in text
    assert "cannot tell from chance.\n" in "\n".join(read_comparison(of_rows(replace(unclear, rows_needed=400))))
    assert "cannot tell" not in "\n".join(read_comparison(of_rows(row("bleu", 5, 9))))


def test_files_are_named_without_an_article() -> None:
    comparison = of_rows(row("bleu", 5, 9), row("perplexity", 9, 5), row("exact_match", 0, 0.5), names=("gpt", "mine"))
    text = "\n".join(read_comparison(comparison))
    assert "300 groups mine, against gpt, is better by" in text
    assert "mine gives the references' wording more probability" in text
    assert "0 of gpt's and 250 of mine's 500 answers equal" in text
    assert "baseline" not in text
    assert "tuned" not in text


# Controls -----------------------------------------------------------------------------------------------------------

ALL_UNCLEAR = [
    row(metric, 1, 1.1, "not distinguishable") for metric in ("bleu", "rougeL", "bertscore_f1", "perplexity")
]


@pytest.mark.parametrize("verdict", ["worse", "not distinguishable", "undefined"])
def test_a_control_that_is_not_beaten_stands_in_the_first_lines(verdict: Verdict) -> None:
    lost = control(
        "random_answer", row("bleu", 9, 8.5, verdict), row("rougeL", 0.2, 0.3), row("rouge2", 0.2, 0.1, "worse")
    )
    beaten = control("nearest_question", row("bleu", 7, 8.5), row("rougeL", 0.2, 0.3))
    comparison = of_rows(*ALL_UNCLEAR, controls=(beaten, lost), lengths=cut_lengths(0.5, 0.5))
    sentences = read_comparison(comparison)
    assert sentences[1] == (
        f"Tuning does not beat a random training answer of the same question type: BLEU 8.50 against 9.00 ({verdict})."
    )
    assert sentences[2] == (
        "By every headline metric tuning beats the answer of the nearest training question of the same type (TF-IDF)."
    )


def test_every_control_that_is_not_beaten_is_named() -> None:
    names: tuple[ControlName, ...] = ("few_shot", "random_answer", "nearest_question")
    controls = tuple(control(name, row("bleu", 9, 8, "worse"), row("rougeL", 0.3, 0.2, "worse")) for name in names)
    sentences = read_comparison(of_rows(row("bleu", 5, 8), controls=controls))
    for name, sentence in zip(names, sentences[1:4], strict=True):
        assert sentence == (
            f"Tuning does not beat {DESCRIPTIONS[name]}: BLEU 8.00 against 9.00 (worse), "
            "ROUGE-L F1 0.2000 against 0.3000 (worse)."
        )
    assert not any("tuning beats" in sentence for sentence in sentences)


def test_beaten_controls_are_listed() -> None:
    names: tuple[ControlName, ...] = ("random_answer", "nearest_question")
    controls = tuple(control(name, row("bleu", 2, 8), row("exact_match", 0, 0, "undefined")) for name in names)
    sentences = read_comparison(of_rows(row("bleu", 5, 8), controls=controls))
    assert sentences[1] == (
        "By every headline metric tuning beats a random training answer of the same question type and the answer of "
        "the nearest training question of the same type (TF-IDF)."
    )


def test_the_ceiling_is_no_rival() -> None:
    ceiling = control("cut_reference", row("bleu", 60, 8, "worse"), row("rougeL", 0.75, 0.2, "worse"))
    sentences = read_comparison(of_rows(row("bleu", 5, 8), controls=(ceiling,)))
    assert sentences[1] == (
        "The ceiling under this cap, the reference answer itself, cut at the cap, scores BLEU 60.00 and "
        "ROUGE-L F1 0.7500."
    )
    assert not any("beat" in sentence for sentence in sentences)


def test_controls_without_a_headline_metric_are_judged_by_what_there_is() -> None:
    lost = control("random_answer", row("rouge1", 0.3, 0.2, "worse"), row("compat_rouge1", 0.3, 0.2, table="compat"))
    nothing = control("cut_reference")
    sentences = read_comparison(of_rows(row("rouge1", 0.1, 0.2), controls=(lost, nothing, control("few_shot"))))
    assert (
        sentences[1]
        == f"Tuning does not beat {DESCRIPTIONS['random_answer']}: ROUGE-1 F1 0.2000 against 0.3000 (worse)."
    )
    assert not any("ceiling" in sentence or "three worked" in sentence for sentence in sentences)


# Warnings -----------------------------------------------------------------------------------------------------------


def warnings(comparison: Comparison) -> list[str]:
    return [sentence for sentence in read_comparison(comparison) if sentence.startswith("Warning:")]


def cut_lengths(before: float, after: float) -> dict[str, Lengths]:
    return {"baseline": Lengths(10, 10, 1, 1 - before, before), "tuned": Lengths(10, 10, 1, 1 - after, after)}


@pytest.mark.parametrize(("share", "warned"), [(0.0, False), (0.05, False), (0.0501, True), (0.658, True)])
def test_a_cap_that_cuts_more_than_five_percent_of_the_references(share: float, warned: bool) -> None:
    comparison = of_rows(row("bleu", 5, 9), references=ReferenceLengths(128, 200.0, 150.0, share))
    expected = (
        f"Warning: the cap of 128 new tokens cuts {share:.1%} of the references, so the overlap scores measure the cap "
        "too; raise generation.max_new_tokens and evaluate again."
    )
    assert warnings(comparison) == ([expected] if warned else [])


@pytest.mark.parametrize(
    ("cut", "warned"),
    [((0, 0), ""), ((1, 1), ""), ((2, 1), "the baseline,"), ((0, 2), "the tuned model,"), ((2, 20), "both")],
)
def test_the_cap_is_told_and_warned_of_above_five_percent(
    make_prediction: MakePrediction, cut: tuple[int, int], warned: str
) -> None:
    sides = [
        [
            make_prediction(id=f"row-{i}", new_tokens=10 + i, finish_reason="length" if i < count else "stop")
            for i in range(20)
        ]
        for count in cut
    ]
    comparison = compare(*sides)
    text = "\n".join(read_comparison(comparison))
    assert f"cut {cut[0] / 20:.1%} of the answers before and {cut[1] / 20:.1%} after" in text
    assert "Answers took 19.5 new tokens on average before and 19.5 after; the references have 4.0." in text
    found = [warning for warning in warnings(comparison) if "of the answers" in warning]
    assert bool(found) == bool(warned)
    assert (warned or "").replace("both", "of the baseline and the tuned model,") in "".join(found)


def test_few_groups() -> None:
    for groups, wording in ((1, "1 group"), (29, "29 groups")):
        (warning,) = warnings(of_rows(row("bleu", 5, 9, groups=groups)))
        assert warning.startswith(f"Warning: the rows fall into {wording}, which is few for a bootstrap;")
    assert warnings(of_rows(row("bleu", 5, 9, groups=30))) == []


def test_leaks() -> None:
    comparison = of_rows(row("bleu", 5, 9), leaking_rows={"question_exact": 5, "focus": 250})
    free = Stratum("leak", "does not leak", 250, 100, {})
    (warning,) = warnings(replace(comparison, strata=(free,)))
    assert warning == (
        "Warning: test rows share things with training rows (exact question 1.0% and focus 50.0% of the test "
        "rows), so that remembering passes for answering; strata.json has the scores without them."
    )
    (warning,) = warnings(comparison)
    assert warning.endswith("passes for answering; no test row is free of them.")
    assert warnings(of_rows(row("bleu", 5, 9))) == []


def test_warnings_stand_before_details() -> None:
    comparison = of_rows(row("bleu", 5, 9), row("perplexity", 9, 5), references=ReferenceLengths(8, 9.0, 9.0, 0.5))
    sentences = read_comparison(comparison)
    assert sentences[1].startswith("Warning:")
    assert sentences[2].startswith("Perplexity of the reference answers fell")


# Details ------------------------------------------------------------------------------------------------------------


def test_improved(make_predictions: MakePredictions, worse: list[str]) -> None:
    text = read(make_predictions(worse, reference_nll=8.0), make_predictions(reference_nll=4.0))
    assert text.startswith("On 4 questions in 4 groups the tuned model, against the baseline, is ")
    assert "Perplexity of the reference answers fell from 7.39 to 2.72, by a factor of 2.72" in text
    assert "the tuned model gives the references' wording more probability" in text
    assert "0 of the baseline's and 1 of the tuned model's 4 answers equal their reference" in text
    assert text.endswith("is no measure of medical correctness.")


def test_worse(make_predictions: MakePredictions, worse: list[str]) -> None:
    text = read(make_predictions(reference_nll=4.0), make_predictions(worse, reference_nll=8.0))
    assert "rose from 2.72 to 7.39, by a factor of 2.72" in text
    assert "wording less probability" in text
    assert re.search(r"\bworse by\b.*perplexity", text)


def test_equal(make_predictions: MakePredictions) -> None:
    text = read(make_predictions(), make_predictions())
    assert "Perplexity of the reference answers did not change at the digits shown (2.72)" in text
    assert "precisions of 1- to 4-grams did not change" in text
    assert "answer length multiplied BLEU by 1.00, phrase match by 1.00" in text
    assert "BLEU differs by 0.00, 95 % interval [0.00, 0.00], which 4 rows cannot tell from chance." in text
    assert not re.search(r"\b(rose|fell|better|worse)\b", text)


def test_bertscore_is_read_where_measured(make_predictions: MakePredictions, minilm: Encoder) -> None:
    comparison = compare(make_predictions(["x"] * 4), make_predictions(), metrics=["bertscore_f1"], encoder=minilm)
    sentences = read_comparison(comparison)
    assert "BERTScore F1" in sentences[0]
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
    assert "precisions of 1- to 4-grams fell (100.0/100.0/100.0/100.0 % before, 77.8/75.0/71.4/66.7 % after)" in text
    assert "answer length multiplied BLEU by 1.00, phrase match by 0.73" in text


def test_uneven_precisions(make_prediction: MakePrediction) -> None:
    reference = "a b c d e f g h"
    text = read([make_prediction("a b c d x y z w", reference)], [make_prediction("b a d c f e h g", reference)])
    assert "precisions of 1- to 4-grams moved unevenly" in text


def test_zeros(make_predictions: MakePredictions) -> None:
    text = read(make_predictions([""] * 4, new_tokens=1), make_predictions(["x"] * 4))
    assert "a BLEU of 0 cannot be split into factors" in text
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
def test_perplexities_that_have_no_factor(sentence_about: Find, baseline: float, tuned: float, expected: str) -> None:
    sentence = sentence_about(of_rows(row("perplexity", baseline, tuned, "undefined")), "Perplexity")
    assert expected in sentence
    assert "factor" not in sentence


def test_one_row_reads_as_one(make_prediction: MakePrediction) -> None:
    row_alone = [make_prediction("Gout.", "Gout.", finish_reason=None, reference_nll=None, reference_tokens=None)]
    metrics = [metric for metric in OFFLINE if metric != "perplexity"]
    text = "\n".join(read_comparison(compare(row_alone, row_alone, metrics=metrics)))
    assert text.startswith("On 1 question in 1 group the tuned model, against the baseline, is not comparable by BLEU")
    assert "1 of the baseline's and 1 of the tuned model's 1 answer equals its reference" in text
    assert "Warning: the rows fall into 1 group, which is few" in text
    assert "which 1 row cannot tell" in "\n".join(
        read_comparison(of_rows(row("bleu", 1, 1, "not distinguishable", n=1, groups=1)))
    )
    assert_grammatical(text)


def test_what_files_do_not_tell_is_not_told(make_predictions: MakePredictions) -> None:
    untold = make_predictions(new_tokens=None, finish_reason=None)
    text = read(untold, untold)
    assert "new tokens" not in text
    half = make_predictions(finish_reason=None)
    assert "Answers took 10.0 new tokens" in read(half, half)
    assert "The cap" not in read(half, half)


def test_nothing_to_compare() -> None:
    (sentence,) = read_comparison(of_rows())
    assert sentence.endswith("is no measure of medical correctness.")


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


# Words and meaning --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "meaning", "conclusion"),
    [
        ("better", "better", "came closer to the references in their words and in the encoder's sense of meaning."),
        ("better", "worse", "more of the references' words in answers that the encoder finds further off in meaning."),
        ("not distinguishable", "better", "sense of meaning, without more of the references' words."),
        ("undefined", "not distinguishable", "neither words nor the encoder's sense of meaning moved by more than"),
    ],
)
def test_words_and_meaning_are_read_together(
    sentence_about: Find, words: Verdict, meaning: Verdict, conclusion: str
) -> None:
    comparison = of_rows(row("rougeL", 0.2, 0.3, words), row("bertscore_f1", 0.6, 0.7, meaning))
    sentence = sentence_about(comparison, "ROUGE-L F1 (shared words in order) went from 0.2000 to 0.3000 and BERTScore")
    assert conclusion in sentence
    assert not [line for line in read_comparison(of_rows(row("rougeL", 0.2, 0.3))) if "shared words in order" in line]


def test_the_readings_parts_are_its_sentences() -> None:
    low = Lengths(10.0, 9.0, 1.0, 0.5, 0.5)
    rows = (row("bleu", 5, 9), row("rougeL", 0.2, 0.3, "not distinguishable", groups=4))
    comparison = of_rows(
        *rows,
        controls=(control("random_answer", row("bleu", 9.0, 5.0, "worse")),),
        lengths={"baseline": low, "tuned": low},
    )
    reading = reading_of(comparison)
    assert reading.sentences == read_comparison(comparison)
    assert [len(part) for part in (reading.verdict, reading.controls, reading.unclear)] == [1, 1, 1]
    assert all(warning.startswith("Warning: ") for warning in reading.warnings)
    assert any("the cap cut more than 5%" in warning for warning in reading.warnings)
    assert not [sentence for sentence in reading.analysis if sentence.startswith("Warning")]
    assert reading.sentences[-1] == reading.limits
