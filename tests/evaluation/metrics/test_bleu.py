from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu

from languages import LANGUAGES
from medtune.evaluation.metrics.bleu import BLEU, Smoothing, bleu_parts, bleu_rows, bleu_signature
from medtune.evaluation.metrics.metric import Answers, MetricRows
from medtune.records import Prediction

# The counts behind a published baseline: matched and predicted 1- to 4-grams, tokens predicted and wanted.
PUBLISHED = np.array([10204, 15489, 4165, 1143, 446, 214, 10204, 10104, 10004, 9904], dtype=np.float64)


def corpus_bleu(predictions: list[str], references: list[str], smoothing: Smoothing = "exp") -> float:
    return bleu_parts(bleu_rows(predictions, references).sum(axis=0), smoothing).score


def test_equals_sacrebleu_and_its_literal(predictions: list[str], references: list[str]) -> None:
    official = sacrebleu.corpus_bleu(predictions, [references])
    value = corpus_bleu(predictions, references)
    assert value == pytest.approx(official.score, abs=1e-12)
    assert value == pytest.approx(28.592920129164188, abs=1e-9)


def test_is_no_mean_of_rows_nor_lowercased(predictions: list[str], references: list[str]) -> None:
    value = corpus_bleu(predictions, references)
    rows = [sacrebleu.sentence_bleu(p, [r]).score for p, r in zip(predictions, references, strict=True)]
    assert value != pytest.approx(sum(rows) / len(rows), abs=0.5)
    assert value != pytest.approx(sacrebleu.corpus_bleu(predictions, [references], lowercase=True).score, abs=0.1)


def test_smooths_a_missing_4gram_as_sacrebleu_does() -> None:
    predictions, references = ["a b c x d e"], ["a b c y d e"]
    official = sacrebleu.corpus_bleu(predictions, [references])
    assert official.score > 0
    assert sacrebleu.corpus_bleu(predictions, [references], smooth_method="none").score == 0
    assert corpus_bleu(predictions, references) == pytest.approx(official.score)


def test_the_form_of_public_write_ups(predictions: list[str], references: list[str]) -> None:
    assert bleu_parts(PUBLISHED, "none").score / 100 == pytest.approx(0.0486524260, abs=1e-10)
    value = corpus_bleu(predictions, references, "none")
    assert value == pytest.approx(sacrebleu.corpus_bleu(predictions, [references], smooth_method="none").score)
    assert value == pytest.approx(28.592920129164188, abs=1e-9)  # every order matches somewhere: nothing to smooth
    assert corpus_bleu(["a b c x d e"], ["a b c y d e"], "none") == 0


def test_the_parts_of_the_published_baseline() -> None:
    parts = bleu_parts(PUBLISHED, "none")
    assert parts.precisions == pytest.approx((40.8173265, 11.3123515, 4.4582167, 2.1607431), abs=1e-6)
    assert parts.brevity_penalty == pytest.approx(math.exp(1 - 15489 / 10204))
    assert parts.length_ratio == pytest.approx(10204 / 15489)
    assert (parts.prediction_length, parts.reference_length) == (10204, 15489)


def test_parts_are_smoothed_as_the_score_is() -> None:
    sums = bleu_rows(["a b c x d e"], ["a b c y d e"]).sum(axis=0)
    assert bleu_parts(sums, "exp").precisions[3] > 0
    assert bleu_parts(sums, "none").precisions[3] == 0
    assert bleu_parts(sums, "none").score == 0


def test_a_resample_equals_sacrebleu_on_the_resampled_texts(predictions: list[str], references: list[str]) -> None:
    picked = [3, 0, 0, 1]
    official = sacrebleu.corpus_bleu([predictions[i] for i in picked], [[references[i] for i in picked]])
    assert bleu_parts(bleu_rows(predictions, references)[picked].sum(axis=0)).score == pytest.approx(official.score)


def test_the_parts_multiply_to_the_score(predictions: list[str], references: list[str]) -> None:
    official = sacrebleu.corpus_bleu(predictions, [references])
    parts = bleu_parts(bleu_rows(predictions, references).sum(axis=0))
    assert parts.precisions == pytest.approx(official.precisions)
    assert (parts.prediction_length, parts.reference_length) == (official.sys_len, official.ref_len)
    assert parts.length_ratio == pytest.approx(official.sys_len / official.ref_len)
    assert 0 < parts.brevity_penalty < 1
    assert parts.brevity_penalty * math.prod(parts.precisions) ** 0.25 == pytest.approx(parts.score)


@pytest.mark.parametrize(
    ("predictions", "references", "value"),
    [
        (["", ""], ["one two", "three"], 0.0),
        (["one"], [""], 0.0),
        ([""], [""], 0.0),
        (["Ein Fieber über 38 °C, täglich."], ["Ein Fieber über 38 °C, täglich."], 100.0),
        (["one\ntwo three four"], ["one two three four"], 100.0),
    ],
)
def test_edges(predictions: list[str], references: list[str], value: float) -> None:
    assert corpus_bleu(predictions, references) == pytest.approx(value)
    assert bleu_parts(bleu_rows(predictions, references).sum(axis=0)).score == pytest.approx(value)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        bleu_rows(["one", "two"], ["one"])


def test_signature_is_sacrebleus_own() -> None:
    metric = sacrebleu.BLEU()
    metric.corpus_score(["x"], [["x"]])
    assert bleu_signature() == str(metric.get_signature())
    assert bleu_signature().startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert bleu_signature("none").startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:none|version:")


# Other scripts, and several references -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LANGUAGES)
def test_other_scripts_equal_sacrebleu_and_its_literal(name: str) -> None:
    language = LANGUAGES[name]
    measured = {rows.name: rows for rows in measure(language.answers, [(text,) for text in language.references])}
    official = sacrebleu.corpus_bleu(language.answers, [language.references], tokenize=language.tokenizer)
    assert measured["bleu"].value() == pytest.approx(official.score) == pytest.approx(language.bleu)
    assert f"|tok:{language.tokenizer}|" in measured["bleu"].signature
    assert "share_of_letters_unread" not in measured["bleu"].details
    assert measured["compat_bleu"].value() * 100 == pytest.approx(language.compat, abs=1e-9)
    assert "|tok:13a|" in measured["compat_bleu"].signature
    unread = {"Chinese": 1.0, "Russian": None, "Thai": 1.0}[name]
    assert measured["compat_bleu"].details.get("share_of_letters_unread") == unread


def test_identical_answers_are_whole_in_every_script() -> None:
    for language in LANGUAGES.values():
        rows = measure(language.references, [(text,) for text in language.references])
        assert rows[0].value() == pytest.approx(100)


def test_a_recipe_may_name_the_tokenizer() -> None:
    rows = measure(["痛风引起关节疼痛。"], [("痛风引起关节疼痛。",)], "13a")[0]
    assert "|tok:13a|" in rows.signature
    assert rows.details["share_of_letters_unread"] == 1.0
    assert rows.details["tokenizer"] == "13a"


@pytest.mark.parametrize(("second", "count"), [("A virus causes the flu.", "2"), (None, "var")])
def test_several_references_equal_sacrebleu_and_its_literal(second: str | None, count: str) -> None:
    answers = ["Gout hurts the joints.", "Flu is caused by a virus."]
    streams = [["Gout causes pain in the joints.", "Influenza is caused by a virus."], ["Gout hurts joints.", second]]
    metric = sacrebleu.BLEU()
    official = metric.corpus_score(answers, streams)  # type: ignore[arg-type]
    references = [tuple(text for text in row if text is not None) for row in zip(*streams, strict=True)]
    rows = measure(answers, references)[0]
    assert rows.value() == pytest.approx(official.score) == pytest.approx(69.18912876154525)
    assert rows.signature == str(metric.get_signature())
    assert rows.signature.startswith(f"nrefs:{count}|")


def measure(answers: list[str], references: list[tuple[str, ...]], tokenizer: str = "auto") -> list[MetricRows]:
    rows = [
        Prediction(str(number), "", texts[0], answer, references=texts)
        for number, (answer, texts) in enumerate(zip(answers, references, strict=True))
    ]
    return BLEU.measure(Answers(rows, bleu_tokenizer=tokenizer), [BLEU])
