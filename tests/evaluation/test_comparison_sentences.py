from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from comparisons import control, cut_lengths, of_rows, row
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.control_answers import DESCRIPTIONS
from medtune.evaluation.headline import headline, rivals_ahead
from medtune.records import ControlName, Lengths, Prediction, ReferenceLengths, Verdict

MakePredictions = Callable[..., list[Prediction]]
MakePrediction = Callable[..., Prediction]


# The verdict --------------------------------------------------------------------------------------------------------


def test_the_headline_comes_first_and_then_the_verdict_with_its_n_and_groups() -> None:
    comparison = of_rows(
        row("bleu", 5, 9),
        row("rougeL", 0.2, 0.1, "worse"),
        row("rouge1", 0.2, 0.3),
        row("rouge2", 0.2, 0.2, "equivalent"),
        row("exact_match", 0, 0, "cannot tell"),
        row("perplexity", math.inf, math.inf, "undefined"),
        row("bits_per_byte", 2.0, 1.0, "descriptive"),
        row("compat_bleu", 0.05, 0.09, "descriptive", table="compat"),
    )
    first, second = reading_of(comparison).sentences[:2]
    assert first == headline(comparison)
    assert second == (
        "On 500 questions in 300 groups the tuned model, against the baseline, is better by BLEU and ROUGE-1 F1; "
        "worse by ROUGE-L F1; equivalent by ROUGE-2 F1; not to be told apart by exact match; not comparable by "
        "perplexity (sign-flip test over groups, p < 0.05 after Holm's correction for 6 primary metrics). "
        "All other metrics are descriptive: each has a 95 % interval by itself, and no verdict."
    )
    alone = reading_of(of_rows(row("bleu", 5, 9))).sentences[1]
    assert "is better by BLEU (sign-flip test over groups, p < 0.05)." in alone


def test_what_is_unclear_says_how_far_it_is_from_clear() -> None:
    unclear = row("bleu", 5, 5.25, "cannot tell", rows_needed=12_345, detectable=1.23, confidence=1 - 0.05 / 3)
    same = row("rouge1", 0.2, 0.201, "equivalent", margin=0.01)
    sentences = reading_of(of_rows(unclear, same, row("rouge2", 0.2, 0.2, "descriptive", rows_needed=999))).sentences
    assert (
        "BLEU differs by +0.25, 98.3 % interval [+0.15, +0.35], which 500 rows cannot tell from chance; they would "
        "show a true difference of 1.23, and one of that size would take about 12,345 rows."
    ) in sentences
    assert (
        "ROUGE-1 F1 differs by +0.0010, 95 % interval [-0.0990, +0.1010], which is within the margin of ± 0.01."
    ) in sentences
    assert not any("999" in sentence for sentence in sentences)  # no primary metric
    bare = replace(unclear, rows_needed=None, interval=None, detectable=None)
    text = "\n".join(reading_of(of_rows(bare)).sentences)
    assert "BLEU differs by +0.25, which 500 rows cannot tell from chance.\n" in text
    near = replace(unclear, rows_needed=400, detectable=None)
    assert "cannot tell from chance.\n" in "\n".join(reading_of(of_rows(near)).sentences)
    assert "cannot tell" not in "\n".join(reading_of(of_rows(row("bleu", 5, 9))).sentences)


def test_files_are_named_without_an_article() -> None:
    comparison = of_rows(row("bleu", 5, 9), row("perplexity", 9, 5), row("exact_match", 0, 0.5), names=("gpt", "mine"))
    text = "\n".join(reading_of(comparison).sentences)
    assert "300 groups mine, against gpt, is better by" in text
    assert "mine gives the references' wording more probability" in text
    assert "0 of gpt's and 250 of mine's 500 answers equal" in text
    assert "baseline" not in text
    assert "tuned" not in text


# Controls -----------------------------------------------------------------------------------------------------------

ALL_UNCLEAR = [row(metric, 1, 1.1, "cannot tell") for metric in ("bleu", "rougeL", "bertscore_f1", "perplexity")]


@pytest.mark.parametrize("verdict", ["worse", "cannot tell", "undefined"])
def test_a_control_that_is_not_beaten_comes_first(verdict: Verdict) -> None:
    lost = control(
        "random_answer", row("bleu", 9, 8.5, verdict), row("rougeL", 0.2, 0.3), row("rouge2", 0.2, 0.1, "descriptive")
    )
    beaten = control("nearest_question", row("bleu", 7, 8.5), row("rougeL", 0.2, 0.3))
    comparison = of_rows(*ALL_UNCLEAR, controls=(beaten, lost), lengths=cut_lengths(0.5, 0.5))
    sentences = reading_of(comparison).sentences
    assert sentences[2] == (
        f"Tuning does not beat a random training answer of the same question type: BLEU 8.50 against 9.00 ({verdict})."
    )
    assert sentences[3] == (
        "By every primary metric tuning beats the answer of the nearest training question of the same type (TF-IDF)."
    )


def test_every_control_that_is_not_beaten_is_named() -> None:
    names: tuple[ControlName, ...] = ("few_shot", "random_answer", "nearest_question")
    controls = tuple(control(name, row("bleu", 9, 8, "worse"), row("rougeL", 0.3, 0.2, "worse")) for name in names)
    sentences = reading_of(of_rows(row("bleu", 5, 8), controls=controls)).sentences
    for name, sentence in zip(names, sentences[2:5], strict=True):
        assert sentence == (
            f"Tuning does not beat {DESCRIPTIONS[name]}: BLEU 8.00 against 9.00 (worse), "
            "ROUGE-L F1 0.2000 against 0.3000 (worse)."
        )
    assert not any("tuning beats" in sentence for sentence in sentences)


def test_beaten_controls_are_listed() -> None:
    names: tuple[ControlName, ...] = ("random_answer", "nearest_question")
    controls = tuple(control(name, row("bleu", 2, 8), row("exact_match", 0, 0, "descriptive")) for name in names)
    sentences = reading_of(of_rows(row("bleu", 5, 8), controls=controls)).sentences
    assert sentences[2] == (
        "By every primary metric tuning beats a random training answer of the same question type and the answer of "
        "the nearest training question of the same type (TF-IDF)."
    )


def test_the_ceiling_is_no_rival() -> None:
    ceiling = control("cut_reference", row("bleu", 60, 8, "worse"), row("rougeL", 0.75, 0.2, "worse"))
    sentences = reading_of(of_rows(row("bleu", 5, 8), controls=(ceiling,))).sentences
    assert sentences[2] == (
        "The ceiling under this cap, the reference answer itself, cut at the cap, scores BLEU 60.00 and "
        "ROUGE-L F1 0.7500."
    )
    assert not any("beat" in sentence for sentence in sentences[1:])


def test_controls_without_a_usual_metric_are_judged_by_what_there_is() -> None:
    lost = control(
        "random_answer", row("rouge1", 0.3, 0.2, "worse"), row("compat_rouge1", 0.3, 0.2, "descriptive", table="compat")
    )
    nothing = control("cut_reference")
    sentences = reading_of(of_rows(row("rouge1", 0.1, 0.2), controls=(lost, nothing, control("few_shot")))).sentences
    assert (
        sentences[2]
        == f"Tuning does not beat {DESCRIPTIONS['random_answer']}: ROUGE-1 F1 0.2000 against 0.3000 (worse)."
    )
    assert not any("ceiling" in sentence or "three worked" in sentence for sentence in sentences)


ON_TOP = DESCRIPTIONS["tuned_retrieval"]


def test_what_retrieval_adds_to_tuning_is_said_and_is_no_rival() -> None:
    with_it = control("tuned_retrieval", row("bleu", 9, 8, "worse"), row("perplexity", 6, 7, "worse"))
    comparison = of_rows(row("bleu", 5, 8), row("perplexity", 9, 7), controls=(with_it,))
    reading = reading_of(comparison)
    assert reading.controls == (
        f"Retrieval on top of tuning adds: {ON_TOP} scores BLEU 9.00 against 8.00 and perplexity 6.00 against 7.00 "
        "without them.",
    )
    assert rivals_ahead(comparison) == {}
    assert "Tuning helped: the tuned model beats the baseline by BLEU and perplexity" in reading.headline
    assert "retriev" not in reading.headline
    assert "rival" not in reading.headline  # there is none that it could beat


def test_retrieval_that_helps_and_hurts_says_both() -> None:
    with_it = control("tuned_retrieval", row("bleu", 9, 8, "worse"), row("perplexity", 8, 7, "better"))
    (sentence,) = reading_of(of_rows(row("bleu", 5, 8), controls=(with_it,))).controls
    assert sentence.endswith("scores BLEU 9.00 against 8.00 without them, but is worse by perplexity.")


@pytest.mark.parametrize("verdict", ["better", "cannot tell", "equivalent", "undefined"])
def test_retrieval_that_adds_nothing_to_tuning_is_left_to_the_table(verdict: Verdict) -> None:
    with_it = control("tuned_retrieval", row("bleu", 7, 8, verdict))
    assert reading_of(of_rows(row("bleu", 5, 8), controls=(with_it,))).controls == ()


def test_retrieval_by_the_untouched_model_is_a_rival() -> None:
    ahead = control("retrieval", row("bleu", 9, 8, "worse"))
    comparison = of_rows(row("bleu", 5, 8), controls=(ahead, control("tuned_retrieval", row("bleu", 9, 8, "worse"))))
    assert list(rivals_ahead(comparison)) == ["retrieval"]
    reading = reading_of(comparison)
    assert reading.headline.startswith("Tuning helped, but less than a simpler way: ")
    assert "the untouched model with the nearest training answers in its prompt scores higher" in reading.headline
    assert reading.controls[0].startswith(f"Tuning does not beat {DESCRIPTIONS['retrieval']}: BLEU 8.00 against 9.00")
    assert reading.controls[1].startswith("Retrieval on top of tuning adds: ")
    beaten = of_rows(row("bleu", 5, 8), controls=(control("retrieval", row("bleu", 7, 8)),))
    assert ", and beats every rival." in reading_of(beaten).headline


# Warnings -----------------------------------------------------------------------------------------------------------


def test_warnings_precede_details() -> None:
    comparison = of_rows(row("bleu", 5, 9), row("perplexity", 9, 5), references=ReferenceLengths(8, 9.0, 9.0, 0.5))
    sentences = reading_of(comparison).sentences
    assert sentences[2].startswith("Warning:")
    assert sentences[3].startswith("Perplexity of the reference answers fell")


def test_nothing_to_compare() -> None:
    first, sentence = reading_of(of_rows()).sentences
    assert first == "No verdict: the scores cannot be compared."
    assert sentence.endswith("is no measure of medical correctness.")


def test_the_readings_parts_are_its_sentences() -> None:
    low = Lengths(10.0, 9.0, 1.0, 0.5, 0.5)
    rows = (row("bleu", 5, 9), row("rougeL", 0.2, 0.3, "cannot tell", groups=4))
    comparison = of_rows(
        *rows,
        controls=(control("random_answer", row("bleu", 9.0, 5.0, "worse")),),
        lengths={"baseline": low, "tuned": low},
    )
    reading = reading_of(comparison)
    assert reading.sentences == [
        reading.headline, *reading.verdict, *reading.controls, *reading.unclear, *reading.warnings, *reading.analysis,
        reading.limits,
    ]  # fmt: skip
    assert [len(part) for part in (reading.verdict, reading.controls, reading.unclear)] == [1, 1, 1]
    assert all(warning.startswith("Warning: ") for warning in reading.warnings)
    assert any("the cap cut 50% of the answers of" in warning for warning in reading.warnings)
    assert not [sentence for sentence in reading.analysis if sentence.startswith("Warning")]
    assert reading.sentences[-1] == reading.limits
