"""A head that processes share out gives the logits, losses and gradients of a whole one, gathered slice by slice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from packed_models import FAMILIES, base_model
from torch import Tensor, nn

from medtune.model import answer_loss, sharding, shared_head
from medtune.model.answer_loss import can_share_head
from medtune.model.sharding import ShardedWeights
from medtune.model.shared_head import SharedHead, SharedHeadLoss

PROCESSES, VOCABULARY, WIDTH = 3, 100, 16


class Others:
    """Stands for the other processes, which hold the other rows of every slice."""

    def __init__(self, stored: Tensor) -> None:
        self.stored, self.head, self.asked = stored, None, []

    def gather(self, whole: Tensor, part: Tensor) -> Any:
        assert isinstance(self.head, SharedHead)
        number = next(n for n, other in enumerate(self.head.shards.parts) if other is part)
        self.asked.append(number)
        rows = self.stored[number * self.head.rows :][: self.head.rows].to(self.head.weight.dtype)
        filled = nn.functional.pad(rows, (0, 0, 0, self.head.rows - len(rows)))
        own = filled[: self.head.own].contiguous().view(-1).view(torch.uint8)
        assert torch.equal(part, own)

        class Work:
            def wait(self) -> None:
                whole.copy_(filled.contiguous().view(-1).view(torch.uint8))

        return Work()


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Others:
    """As the first of three processes, whose buffers hold 21 rows of the head."""
    torch.manual_seed(0)
    others = Others(torch.randn(VOCABULARY, WIDTH))
    monkeypatch.setenv("WORLD_SIZE", str(PROCESSES))
    monkeypatch.setattr(sharding, "open_group", lambda: None)
    monkeypatch.setattr(sharding, "gather_parts", others.gather)
    monkeypatch.setattr(shared_head, "LOGIT_BYTES", 4 * 21 * 4)  # of so many rows, four at a time
    shards = ShardedWeights()
    shards.largest = 23 * WIDTH * 4
    shards._buffers = [torch.zeros(shards.largest, dtype=torch.uint8) for _ in range(sharding.BUFFERS)]
    others.head = SharedHead(others.stored, shards, dtype=torch.float32, device="cpu")
    return others


def test_each_process_keeps_its_rows_of_every_slice(others: Others) -> None:
    head = others.head
    assert (head.rows, head.own, len(head.shards.parts)) == (21, 7, 5)
    assert all(part.numel() == 7 * WIDTH * 4 for part in head.shards.parts)
    assert (head.out_features, head.in_features, head.weight.shape) == (VOCABULARY, WIDTH, (0, WIDTH))


def test_logits_are_those_of_the_whole_head(others: Others) -> None:
    x = torch.randn(2, 1, WIDTH)
    torch.testing.assert_close(others.head(x), x @ others.stored.t())
    assert others.asked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("answers", [0, 1, 70])
def test_losses_and_gradients_are_those_of_the_whole_head(others: Others, answers: int) -> None:
    """A pass without any answer token takes part in the gathers as well."""
    positions, labels = torch.randperm(80)[:answers], torch.randint(VOCABULARY, (answers,))
    hidden = torch.randn(80, WIDTH, requires_grad=True)
    whole = hidden.detach().clone().requires_grad_()
    weights = torch.rand(answers)
    losses = SharedHeadLoss.apply(hidden, positions, labels, others.head)
    (losses * weights).sum().backward()
    expected = nn.functional.cross_entropy(whole[positions] @ others.stored.t(), labels, reduction="none")
    (expected * weights).sum().backward()
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden.grad, whole.grad, atol=1e-6, rtol=1e-5)
    # There and back; the last slice is there still, and the one before it.
    assert others.asked == [0, 1, 2, 3, 4, 2, 1, 0]
    with torch.no_grad():
        others.asked.clear()
        SharedHeadLoss.apply(hidden.detach(), positions, labels, others.head)
    assert others.asked == [2, 3, 4]


def test_a_small_head_or_one_that_is_tied_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = base_model(FAMILIES["llama"])
    assert not can_share_head(model)
    monkeypatch.setattr(answer_loss, "LEAST_BYTES", 1)
    assert can_share_head(model)
    model.config.tie_word_embeddings = True
    assert not can_share_head(model)
