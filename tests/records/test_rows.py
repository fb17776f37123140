"""What rows say of themselves."""

from __future__ import annotations

import pytest

from medtune.records import IGNORED, EncodedRow, Prediction, QAPair


@pytest.mark.parametrize(
    ("labels", "length"),
    [([IGNORED, IGNORED, 7, 8], 2), ([7, 8], 0), ([IGNORED] * 3, 3), ([], 0), ([IGNORED, 7, IGNORED], 1)],
)
def test_a_prompt_ends_before_the_first_label(labels: list[int], length: int) -> None:
    assert EncodedRow("1", list(range(len(labels))), labels).prompt_length == length


def test_the_ignored_label_is_torchs_own() -> None:
    import torch

    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED


@pytest.mark.parametrize(
    ("labels", "start", "learned"),
    [
        ([IGNORED, IGNORED, 7, 8], 2, 2),
        ([IGNORED, 7, IGNORED, 8, 9], 3, 3),  # two answers: where the last begins, and the tokens of both
        ([7, 8], 0, 2),
        ([IGNORED, 7, IGNORED], 3, 1),
        ([], 0, 0),
    ],
)
def test_the_last_answer_begins_behind_the_last_token_without_a_label(
    labels: list[int], start: int, learned: int
) -> None:
    row = EncodedRow("1", list(range(len(labels))), labels)
    assert (row.answer_start, row.learned_tokens) == (start, learned)


def test_what_a_question_is_about_stands_below_it() -> None:
    assert QAPair("1", "", "What is it?", "Gout.").asked == "What is it?"
    assert QAPair("1", "", "What is it?", "Gout.", context="A red toe.").asked == "What is it?\n\nA red toe."


def test_one_reference_is_all_of_them_where_a_row_lists_none() -> None:
    assert Prediction("1", "q", "r", "p").all_references == ("r",)
    assert Prediction("1", "q", "r", "p", references=("r", "s")).all_references == ("r", "s")
