"""Embeddings in host memory: the same rows, and nothing of the table left among the model's parameters."""

import pytest
import torch
from packed_models import (
    FAMILIES,
    adapt,
    adapted,
    base_model,
    error,
    gradients_of,
    pack,
    packed_loss,
    some_rows,
    with_targets,
)  # fmt: skip

from medtune.model.answer_loss import add_answer_loss
from medtune.model.fused.layers import fuse_layers
from medtune.model.host_store import HostStore, move_embeddings_to_host

ROWS = some_rows()


def test_a_table_that_never_was_on_the_device_stays_in_host_memory(plain_memory):
    model, plain = base_model(FAMILIES["llama"]), base_model(FAMILIES["llama"])
    move_embeddings_to_host(model, "cpu")
    move_embeddings_to_host(model, "cpu")  # where it is already
    assert len(plain_memory) == 1
    batch, _ = pack(ROWS)
    assert torch.equal(model(**batch, use_cache=False).logits, plain(**batch, use_cache=False).logits)


def test_embeddings_on_the_host_give_the_same_outputs(plain_memory):
    model, plain = adapted(), adapted()
    move_embeddings_to_host(model)
    assert plain_memory == [((64, 32), torch.float32)]
    batch, _ = pack(ROWS)
    expected = plain(**batch, use_cache=False).logits
    assert torch.equal(model(**batch, use_cache=False).logits, expected)
    fuse_layers(model)
    torch.testing.assert_close(model(**batch, use_cache=False).logits, expected, atol=1e-5, rtol=1e-5)
    add_answer_loss(model.get_base_model())
    targets = with_targets(batch | {"labels": batch["input_ids"]})
    _, gradients = gradients_of(model, model(**targets).mean())
    add_answer_loss(plain.get_base_model())
    _, expected_gradients = gradients_of(plain, plain(**targets).mean())
    assert error(gradients, expected_gradients) < 1e-5


def test_the_parameter_stays_without_columns(plain_memory):
    model = base_model(FAMILIES["llama"])
    embedding = model.get_input_embeddings()
    parameter, names = embedding.weight, [name for name, _ in model.named_parameters()]
    ids = torch.tensor([[5, 0, 63], [1, 1, 2]])
    expected = embedding(ids)
    move_embeddings_to_host(model)
    assert embedding.weight is parameter
    assert parameter.shape == (64, 0)
    assert parameter.untyped_storage().nbytes() == 0
    assert not parameter.requires_grad
    assert [name for name, _ in model.named_parameters()] == names
    # The table is nobody's parameter or buffer: what a trainer moves to its device once more is the rest.
    moved = sum(value.numel() for value in model.state_dict().values())
    assert moved == sum(value.numel() for value in base_model(FAMILIES["llama"]).state_dict().values()) - 64 * 32
    embedding.to("meta")
    rows = embedding(ids)
    assert rows.device.type == "cpu"
    assert torch.equal(rows, expected)


def test_embeddings_that_are_on_the_host_stay_as_they_are(plain_memory):
    model, ids = base_model(FAMILIES["llama"]), torch.tensor([[5, 0, 63]])
    expected = model.get_input_embeddings()(ids)
    for _ in range(2):
        move_embeddings_to_host(model)
    assert len(plain_memory) == 1
    assert torch.equal(model.get_input_embeddings()(ids), expected)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 3e-2)], ids=str
)
@pytest.mark.parametrize("family", FAMILIES)
def test_fused_layers_on_a_gpu(family, dtype, tolerance):
    """Offloaded layers as those that stay, and both as float32 on the CPU, with embeddings on either side."""
    rows = some_rows([40, 1, 60, 27])

    def build():
        model = adapt(base_model(FAMILIES[family]).to(dtype), dtype=dtype)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model

    exact = build().float()
    expected_loss, expected = gradients_of(exact, packed_loss(exact, rows))
    model = build().to("cuda")
    layers = fuse_layers(model)
    loss, gradients = gradients_of(model, packed_loss(model, rows))
    gradients = {name: gradient.cpu() for name, gradient in gradients.items()}
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert error(gradients, expected) < 2 * tolerance
    move_embeddings_to_host(model)
    store = HostStore(torch.device("cuda"))
    for offloaded in (1, 3):
        for layer in layers[:offloaded]:
            layer.recompute, layer.store = True, store
        again, again_gradients = gradients_of(model, packed_loss(model, rows))
        again_gradients = {name: gradient.cpu() for name, gradient in again_gradients.items()}
        assert again == loss
        # Sums of attention's backward pass come in any order on a GPU.
        assert error(again_gradients, gradients) < tolerance / 3
    assert store.stack == []
