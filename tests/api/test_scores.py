"""Scores and comparisons of predictions in any form that a program has them in."""

from __future__ import annotations

import pytest

import medtune


def test_predictions_come_as_rows_frames_and_files(finished: medtune.Run):
    import pandas

    rows = finished.predictions("tuned")
    file = finished.path / "tuned" / "predictions.jsonl"
    scores = medtune.score(file)
    assert scores == medtune.score(rows) == medtune.score(pandas.DataFrame(rows))
    assert scores["bleu"].value == pytest.approx(finished.scores("tuned")["bleu"].value)
    assert medtune.compare(rows, file).rows[0].difference == 0


def test_scores_are_shown_as_the_table_and_are_a_mapping(finished: medtune.Run):
    scores = medtune.score(finished.predictions("tuned"), metrics=["exact_match"])
    assert dict(scores) == {"exact_match": scores["exact_match"]}
    for shown in (str(scores), scores._repr_html_(), str(finished.scores("tuned"))):
        assert "95 % interval" in shown
        assert scores["exact_match"].signature in shown


def test_two_runs_are_compared_by_their_tuned_answers(finished: medtune.Run):
    compared = medtune.compare(finished, finished.path)
    assert {row.difference for row in compared.rows} == {0.0}
    assert compared.names == (str(finished.path), str(finished.path))
    with pytest.raises(medtune.MedtuneError, match="a run and predictions do not compare"):
        medtune.compare(finished, finished.predictions("tuned"))
    with pytest.raises(medtune.MedtuneError, match="go with two sets of predictions"):
        medtune.compare(finished, finished, metrics=["bleu"])


def test_predictions_are_measured_as_a_recipe_would_say():
    rows = [
        {"id": number, "reference": "Gout hurts.", "prediction": "<think></think>Gout hurts."} for number in range(9)
    ]
    separated, raw = (medtune.score(rows, metrics=["exact_match"], answers=answers) for answers in ("separated", "raw"))
    assert (separated["exact_match"].value, raw["exact_match"].value) == (1.0, 0.0)
    compared = medtune.compare(rows, rows, bleu_tokenizer="char", rouge_tokenizer="unicode-words", primary=["bleu"])
    assert [row.metric for row in compared.rows if row.is_primary] == ["bleu"]
    assert "tok:char" in compared.rows[0].signature
    for given, expected in (
        ({"answers": "all"}, "^answers 'all': must be"),
        ({"metrics": ["rouge"]}, "^metrics rouge: unknown"),
    ):
        with pytest.raises(medtune.MedtuneError, match=expected):
            medtune.score(rows, **given)
    with pytest.raises(medtune.MedtuneError, match=r"^primary rouge: unknown"):
        medtune.compare(rows, rows, primary=["rouge"])
    with pytest.raises(TypeError, match="unknown settings: metric"):
        medtune.score(rows, metric=["bleu"])
