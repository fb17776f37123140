from __future__ import annotations

from collections.abc import Callable

import pytest

from medtune.evaluation.lengths import answer_lengths, reference_lengths
from medtune.records import Lengths, Prediction, ReferenceLengths

MakePrediction = Callable[..., Prediction]


def test_lengths_by_hand(make_prediction: MakePrediction) -> None:
    rows = [
        make_prediction("one two", "one two three four", new_tokens=3),
        make_prediction("one two three", "one two", new_tokens=4),
        make_prediction("", "one two", new_tokens=1),
        make_prediction("one", "one two", new_tokens=8, finish_reason="length"),
    ]
    assert answer_lengths(rows) == Lengths(
        mean_tokens=4.0, median_tokens=3.5, length_ratio=0.6, share_stopped=0.75, share_at_cap=0.25
    )


def test_what_a_file_does_not_tell_is_none(make_prediction: MakePrediction) -> None:
    rows = [make_prediction("one two", "one two"), make_prediction("", "one two", new_tokens=None)]
    lengths = answer_lengths(rows)
    assert (lengths.mean_tokens, lengths.median_tokens) == (None, None)
    assert (lengths.share_stopped, lengths.share_at_cap, lengths.length_ratio) == (1, 0, 0.5)
    lengths = answer_lengths([make_prediction(), make_prediction(finish_reason=None)])
    assert (lengths.mean_tokens, lengths.median_tokens) == (10, 10)
    assert (lengths.share_stopped, lengths.share_at_cap) == (None, None)


def test_references_longer_than_the_cap(make_prediction: MakePrediction) -> None:
    """A reference of exactly the cap, end token included, is not cut."""
    rows = [make_prediction(reference_tokens=count) for count in (10, 20, 21, 29)]
    assert reference_lengths(rows, 20) == ReferenceLengths(20, 20.0, 20.5, 0.5)
    assert reference_lengths(rows, 29) == ReferenceLengths(29, 20.0, 20.5, 0.0)


@pytest.mark.parametrize("rows", [0, 2])
def test_references_that_were_not_measured(make_prediction: MakePrediction, rows: int) -> None:
    assert reference_lengths([make_prediction(), make_prediction(reference_tokens=None)][:rows], 20) is None
