"""The loss of each answer token: what plain logits give, and their gradient."""

import inspect

import pytest
import torch
from packed_models import FAMILIES, SMALL, adapt, base_model, error, gradients_of, pack, some_rows, with_targets
from torch.nn.functional import cross_entropy
from transformers import CohereConfig, Gemma2Config, GraniteConfig

from medtune.model import answer_loss
from medtune.model.answer_loss import add_answer_loss
from medtune.model.fused.layers import fuse_layers
from medtune.model.kernels import plain

HEADS = {
    "llama": FAMILIES["llama"],
    "gemma 2, squashed": Gemma2Config(**SMALL, final_logit_softcapping=3.0, tie_word_embeddings=False),
    "gemma 2, plain": Gemma2Config(**SMALL, final_logit_softcapping=None, tie_word_embeddings=False),
    "cohere, scaled": CohereConfig(**SMALL, logit_scale=0.25, tie_word_embeddings=False),
    "granite, divided": GraniteConfig(**SMALL, logits_scaling=3.0, tie_word_embeddings=False),
}
# Of 25 tokens in four rows; the row of one token has no answer.
LABELS = [[-100] * 3 + [9, 8, 7, 6], [-100], [-100] * 2 + [5] * 4 + [-100] * 3 + [4, 3, 2], [-100, 60, 61, -100, -100]]

ANSWERS = [9, 8, 7, 6, 5, 5, 5, 5, 4, 3, 2, 60, 61]


def labelled(rows, labels=LABELS):
    """Rows as the collator packs them, with `labels` in place of each row's own."""
    batch, _ = pack(rows)
    return batch | {"labels": torch.tensor([[label for row in labels for label in row]])}


def model_loss(model, batch):
    """The model's own: logits of all tokens, in its own scale, and the mean over the labels."""
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False).logits[0]
    return cross_entropy(logits[:-1], batch["labels"][0, 1:], ignore_index=-100)


@pytest.mark.parametrize("logit_bytes", [answer_loss.LOGIT_BYTES, 3 * 64 * 8, 1])
@pytest.mark.parametrize("head", HEADS)
def test_loss_and_gradient_are_those_of_full_logits(monkeypatch, head, logit_bytes):
    monkeypatch.setattr(answer_loss, "LOGIT_BYTES", logit_bytes)
    model = adapt(base_model(HEADS[head]), dtype=torch.float64)
    batch = labelled(some_rows())
    expected_loss, expected = gradients_of(model, model_loss(model, batch))
    add_answer_loss(model.get_base_model())
    losses = model(**with_targets(batch))
    assert losses.shape == (13,)
    loss, gradients = gradients_of(model, losses.mean())
    # Models that change their logits go the way of transformers, which takes float32 for losses.
    tolerance = 1e-6 if answer_loss.logit_change(HEADS[head]) else 1e-12
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert error(gradients, expected) < tolerance


def test_each_loss_has_its_own_weight():
    model = adapt(base_model(FAMILIES["llama"]), dtype=torch.float64)
    batch = with_targets(labelled(some_rows()))
    weights = torch.linspace(-1, 2, 13, dtype=torch.float64)
    rest = {name: value for name, value in batch.items() if not name.startswith("answer_")}
    logits = model(**rest, use_cache=False).logits[0]
    plainly = cross_entropy(logits[batch["answer_positions"]], batch["answer_labels"], reduction="none")
    _, expected = gradients_of(model, (plainly * weights).sum())
    add_answer_loss(model.get_base_model())
    losses = model(**batch)
    torch.testing.assert_close(losses, plainly, rtol=1e-12, atol=1e-12)
    _, gradients = gradients_of(model, (losses * weights).sum())
    assert error(gradients, expected) < 1e-12


def test_gradient_by_hidden_states_is_zero_where_nothing_is_asked():
    torch.manual_seed(0)
    hidden = torch.randn(10, 32, dtype=torch.float64, requires_grad=True)
    head = torch.randn(64, 32, dtype=torch.float64)
    positions, labels = torch.tensor([7, 2, 3]), torch.tensor([0, 63, 5])
    losses = answer_loss._HeadLoss.apply(hidden, positions, labels, head)
    expected = cross_entropy(hidden[positions] @ head.t(), labels, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(losses.sum(), hidden)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), hidden)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)
    assert not gradient[[0, 1, 4, 5, 6, 8, 9]].any()


@pytest.mark.parametrize("with_gradient", [True, False])
def test_only_answer_rows_reach_the_head(monkeypatch, with_gradient):
    monkeypatch.setattr(answer_loss, "LOGIT_BYTES", 30 * 64 * 4)
    seen = []

    def watched(logits, labels, **options):
        seen.append((tuple(logits.shape), labels.tolist(), options))
        return cross_entropy_kernel(logits, labels, **options)

    cross_entropy_kernel = plain.cross_entropy
    monkeypatch.setattr(plain, "cross_entropy", watched)
    model = adapt(base_model(FAMILIES["llama"]))
    monkeypatch.setattr(model.get_output_embeddings(), "forward", None)
    add_answer_loss(model.get_base_model())
    with torch.set_grad_enabled(with_gradient):
        losses = model(**with_targets(labelled(some_rows())))
    assert losses.requires_grad == with_gradient
    # Filled up to 64 rows, in pieces of at most 30.
    assert [shape for shape, _, _ in seen] == [(21, 64), (21, 64), (22, 64)]
    assert [label for _, labels, _ in seen for label in labels] == ANSWERS + [0] * (64 - len(ANSWERS))
    assert [options for _, _, options in seen] == [{"with_gradient": with_gradient}] * 3


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fused", [False, True])
def test_no_answers_give_a_differentiable_zero(head, fused):
    """What a process computes that has fewer passes than another."""
    model = adapt(base_model(HEADS[head]))
    if fused:
        fuse_layers(model)
    add_answer_loss(model.get_base_model())
    losses = model(**with_targets(labelled(some_rows(), [[-100] * len(row) for row in LABELS])))
    assert losses.shape == (0,)
    assert losses.dtype == torch.float32
    loss, gradients = gradients_of(model, losses.sum() / 3)
    assert loss == 0
    assert all(not gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_whatever_the_model_is(dtype):
    model = adapt(base_model(FAMILIES["llama"]), dtype=dtype)
    batch = labelled(some_rows())
    exact = model_loss(adapt(base_model(FAMILIES["llama"])), batch).item()
    add_answer_loss(model.get_base_model())
    with torch.autocast("cpu", dtype):
        losses = model(**with_targets(batch))
    assert losses.dtype == torch.float32
    assert losses.mean().item() == pytest.approx(exact, rel=0.02)


def test_plain_calls_stay_what_they_were():
    model, plainly = base_model(FAMILIES["llama"]), base_model(FAMILIES["llama"])
    signature = inspect.signature(model.forward)
    add_answer_loss(model)
    assert inspect.signature(model.forward).parameters.keys() >= signature.parameters.keys()
    ids = torch.tensor(some_rows([6]))
    output = model(input_ids=ids, labels=ids)
    assert torch.equal(output.logits, plainly(input_ids=ids).logits)
    assert output.loss is not None
    options = {"max_new_tokens": 4, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(model.generate(ids, **options), plainly.generate(ids, **options))
