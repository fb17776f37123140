from __future__ import annotations

import time

import numpy as np
import pytest

from medtune.evaluation.comparison import compare_measured
from medtune.evaluation.measurement import measure_rows, score_rows
from medtune.evaluation.metrics import METRIC_NAMES, MetricRows
from medtune.evaluation.metrics.bleu import BLEU
from medtune.evaluation.significance import Subsamples
from medtune.records import Prediction

ROWS = 1600
WORDS_A_ANSWER = 200  # about 270 tokens of a model
OFFLINE = [metric for metric in METRIC_NAMES if metric != "bertscore_f1"]


def answers(kept: float, seed: int) -> list[Prediction]:
    """Answers of sentences and lines, in words as common as English ones, of which a share is the reference's."""
    generator = np.random.default_rng(0)
    changes = np.random.default_rng(seed)
    stems = [f"{a}{b}{c}" for a in "bcdfglmnprst" for b in ("ar", "en", "iol", "os", "ul") for c in "bdgklmnt"]
    vocabulary = np.array([stem + ending for ending in ("", "s", "ed", "ing", "ation") for stem in stems])
    chances = 1 / np.arange(1, len(vocabulary) + 1)
    chances /= chances.sum()
    rows = []
    for number in range(ROWS):
        words = generator.choice(vocabulary, size=WORDS_A_ANSWER, p=chances)
        other = changes.choice(vocabulary, size=WORDS_A_ANSWER, p=chances)
        mixed = np.where(changes.random(WORDS_A_ANSWER) < kept, words, other)
        rows.append(
            Prediction(
                f"row-{number}", "What ?", punctuated(words), punctuated(mixed),
                reference_nll=400.0 + number, reference_tokens=270, group=f"topic {number // 2}",
            )
        )  # fmt: skip
    return rows


def punctuated(words: np.ndarray) -> str:
    sentences = [" ".join(words[start : start + 16]).capitalize() + "." for start in range(0, len(words), 16)]
    return "\n".join(" ".join(sentences[start : start + 3]) for start in range(0, len(sentences), 3))


@pytest.mark.slow
def test_1600_predictions_and_1000_resamples_take_less_than_30_seconds() -> None:
    predictions = answers(0.6, seed=1)
    started = time.perf_counter()
    measured = measure_rows(predictions, OFFLINE, encoder=None, caps="max_new_tokens:512")
    drawn = Subsamples.draw([row.group for row in predictions], splits=1000, seed=0)
    scores = score_rows(measured, drawn)
    took = time.perf_counter() - started
    assert {(score.n, score.groups) for score in scores.values()} == {(1600, 800)}
    assert 0 < scores["bleu"].value < 100
    assert took < 30


def test_comparing_resamples_statistics_and_scores_nothing_again() -> None:
    """From statistics a row, a comparison is sums alone: no text is there to be scored."""
    generator = np.random.default_rng(0)
    counts = generator.integers(10, 200, size=(ROWS, 10)).astype(np.float64)
    sides = [[MetricRows(BLEU, counts + shift, "one-way")] for shift in (0, 1)]
    started = time.perf_counter()
    drawn = Subsamples.draw([f"topic {row // 2}" for row in range(ROWS)], splits=1000, seed=0)
    (row,) = compare_measured(*sides, drawn)
    assert row.ci95 is not None
    assert time.perf_counter() - started < 5
