"""Reference losses: what plain logits give, whatever rows share a pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.model.answer_loss import add_answer_loss, answer_losses, fill_micro_batches
from medtune.prompts import PromptRenderer
from medtune.records import QAPair


@pytest.fixture(scope="module")
def encoded(tiny):
    renderer = PromptRenderer(tiny.tokenizer, "Be kind.")
    answers = ["Uric acid.", "Nobody knows why, but " * 4, "x", "Rest.\nSleep."]
    return [renderer.encode_pair(QAPair(str(i), "q", f"What is {i} ?", answer)) for i, answer in enumerate(answers)]


def plain_loss(model, row):
    logits = model(torch.tensor([row.input_ids])).logits[0, :-1].double()
    labels = torch.tensor(row.labels[1:])
    return float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum"))


@pytest.mark.parametrize("budget", [16, 60, 100_000])
def test_equals_plain_cross_entropy(tiny, encoded, budget):
    model = tiny.load()
    expected = [plain_loss(model, row) for row in encoded]
    add_answer_loss(model)
    seen = []
    losses = answer_losses(model, encoded, pad_token_id=2, tokens_per_batch=budget, on_rows=seen.append)
    assert [loss.nll for loss in losses] == pytest.approx(expected, rel=1e-5)
    assert [loss.tokens for loss in losses] == [sum(label != -100 for label in row.labels) for row in encoded]
    assert sum(seen) == len(encoded)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.integers(16, 300))
def test_micro_batches_hold_every_row_once_within_the_budget(lengths, budget):
    passes = fill_micro_batches(lengths, budget)
    assert sorted(index for indices in passes for index in indices) == list(range(len(lengths)))
    for indices in passes:
        assert len(indices) == 1 or sum(lengths[i] for i in indices) <= budget
    # First-fit decreasing needs at most 11/9 of the best plus 6/9; the total volume bounds the best from below.
    big = sum(length > budget for length in lengths)
    volume = sum(length for length in lengths if length <= budget)
    assert len(passes) <= big + 2 * -(-volume // budget) + 1
