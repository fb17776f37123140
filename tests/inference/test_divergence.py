"""Agreement of two models: divergences from hidden states are those of whole logits, and faults show."""

from __future__ import annotations

import pytest
import torch

from medtune.inference import divergence
from medtune.inference.divergence import answer_states, compare_states, same_prefix
from medtune.records import IGNORED, EncodedRow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number, (prompt, answer) in enumerate([(5, 9), (12, 3), (30, 40)]):
        ids = torch.randint(10, 300, (prompt + answer,), generator=generator).tolist()
        rows.append(EncodedRow(str(number), ids, [IGNORED] * prompt + ids[prompt:]))
    return rows


def moved(tiny, scale):
    """The tiny model with other weights in one layer."""
    model = tiny.load()
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.data += scale * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return model


def quiet(count):
    pass


def plain_log_probabilities(model, rows):
    """Row by row, from transformers' own logits."""
    found = []
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0].float()
        found.append(torch.log_softmax(logits[row.prompt_length - 1 : -1], dim=-1))
    return found


def test_divergences_are_those_of_whole_logits(tiny, rows, monkeypatch):
    first, second = tiny.load(), moved(tiny, 0.05)
    monkeypatch.setattr(divergence, "LOGIT_BYTES", 4 * len(tiny.tokenizer) * 7)  # seven positions at once
    monkeypatch.setattr(divergence, "PASS_TOKENS", 64)
    found = compare_states(*(answer_states(model, rows, quiet) for model in (first, second)), CPU)
    pairs = list(zip(*(plain_log_probabilities(model, rows) for model in (first, second)), strict=True))
    expected = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in pairs]).double()
    same = torch.cat([p.argmax(-1) == q.argmax(-1) for p, q in pairs])
    assert len(found.same) == 9 + 3 + 40
    # Rows share passes in another order.
    assert torch.allclose(found.divergence.sort().values, expected.sort().values, atol=1e-4, rtol=1e-3)
    assert found.share == pytest.approx(float(same.double().mean()))
    assert 0 < found.share < 1
    summary = found.summary()
    assert summary.mean == pytest.approx(float(expected.mean()), rel=1e-3)
    assert summary.mean < summary.p95 < summary.max


def test_a_model_agrees_with_itself(tiny, rows):
    states = answer_states(tiny.load(), rows, quiet)
    found = compare_states(states, answer_states(tiny.load(), rows, quiet), CPU)
    assert found.share == 1
    assert found.summary().max < 1e-6


def test_weights_that_wait_elsewhere_give_the_same(tiny, rows):
    """As where a GPU is too small: layers and head are fetched as they are called."""
    from accelerate import cpu_offload

    waiting = cpu_offload(tiny.load(), CPU)
    assert waiting.get_output_embeddings().weight.device.type == "meta"
    first, second = (answer_states(model, rows, quiet) for model in (tiny.load(), waiting))
    found = compare_states(first.park(), second.park(), CPU)
    assert found.share == 1
    assert found.summary().max < 1e-6


def test_every_row_is_told(tiny, rows):
    seen = []
    answer_states(tiny.load(), rows, seen.append)
    assert sum(seen) == len(rows)


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ([[1, 2, 3], [4]], [[1, 2, 3], [4]], 1.0),
        ([[1, 2, 3], [4]], [[1, 9, 3], [5]], 1 / 4),
        ([[1, 2]], [[1, 2, 3, 4]], 2 / 4),
        ([[]], [[]], 0.0),
    ],
)
def test_same_prefix(first, second, share):
    assert same_prefix(first, second) == pytest.approx(share)
    assert same_prefix(second, first) == pytest.approx(share)
