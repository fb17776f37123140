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
