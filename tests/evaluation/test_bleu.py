from __future__ import annotations

import math

import pytest
import sacrebleu

from medtune.evaluation.bleu import bleu_from_rows, bleu_parts, bleu_rows, bleu_signature


def test_equals_sacrebleu_and_its_literal(predictions: list[str], references: list[str]) -> None:
    official = sacrebleu.corpus_bleu(predictions, [references])
    value = bleu_from_rows(bleu_rows(predictions, references))
    assert value == pytest.approx(official.score, abs=1e-12)
    assert value == pytest.approx(28.592920129164188, abs=1e-9)


def test_is_no_mean_of_rows_nor_lowercased(predictions: list[str], references: list[str]) -> None:
    value = bleu_from_rows(bleu_rows(predictions, references))
    rows = [sacrebleu.sentence_bleu(p, [r]).score for p, r in zip(predictions, references, strict=True)]
    assert value != pytest.approx(sum(rows) / len(rows), abs=0.5)
    assert value != pytest.approx(sacrebleu.corpus_bleu(predictions, [references], lowercase=True).score, abs=0.1)


def test_smooths_a_missing_4gram_as_sacrebleu_does() -> None:
    predictions, references = ["a b c x d e"], ["a b c y d e"]
    official = sacrebleu.corpus_bleu(predictions, [references])
    assert official.score > 0
    assert sacrebleu.corpus_bleu(predictions, [references], smooth_method="none").score == 0
    assert bleu_from_rows(bleu_rows(predictions, references)) == pytest.approx(official.score)


def test_a_resample_equals_sacrebleu_on_the_resampled_texts(predictions: list[str], references: list[str]) -> None:
    picked = [3, 0, 0, 1]
    official = sacrebleu.corpus_bleu([predictions[i] for i in picked], [[references[i] for i in picked]])
    assert bleu_from_rows(bleu_rows(predictions, references)[picked]) == pytest.approx(official.score)


def test_the_parts_multiply_to_the_score(predictions: list[str], references: list[str]) -> None:
    official = sacrebleu.corpus_bleu(predictions, [references])
    parts = bleu_parts(bleu_rows(predictions, references))
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
    assert bleu_from_rows(bleu_rows(predictions, references)) == pytest.approx(value)
    assert bleu_parts(bleu_rows(predictions, references)).score == pytest.approx(value)


def test_lists_of_unlike_length_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        bleu_rows(["one", "two"], ["one"])


def test_signature_is_sacrebleus_own() -> None:
    metric = sacrebleu.BLEU()
    metric.corpus_score(["x"], [["x"]])
    assert bleu_signature() == str(metric.get_signature())
    assert bleu_signature().startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
