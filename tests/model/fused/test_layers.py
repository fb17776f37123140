"""Fused decoder layers on packs, against transformers and PEFT on each row by itself."""

import copy

import pytest
import torch
from packed_models import (
    FAMILIES,
    adapt,
    adapted,
    base_model,
    error,
    gradients_of,
    lift_norms,
    pack,
    packed_loss,
    separate_loss,
    some_rows,
)  # fmt: skip

from medtune.config.schema import ModelSection
from medtune.model.attention import RowBounds, attend_rows
from medtune.model.decoder_structure import decoder_layers
from medtune.model.fused import layers as fused_layers
from medtune.model.fused.layers import fuse_layers
from medtune.model.loading import ModelFiles, load_base_model

ROWS = some_rows()


@pytest.fixture
def by_nf4(tiny):
    """Makes models of the tiny model's weights in 4 bit, with adapters."""

    def build(**options):
        section = ModelSection(base=str(tiny.path), quantization="nf4")
        base = load_base_model(ModelFiles(tiny.path, None), section, device="cpu", dtype="float32")
        return adapt(base, **options)

    return build


def lifted_adapters(model):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
# Products with the base weights take whole eights of ranks: some sums are such, others are filled up.
@pytest.mark.parametrize("rank", [3, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_pefts(family, rank, dtype):
    plain, model = adapted(family, rank=rank, dtype=dtype), adapted(family, rank=rank, dtype=dtype)
    if dtype == torch.float64:
        lift_norms(plain)
    expected_loss, expected = gradients_of(plain, separate_loss(plain, ROWS))
    layers = fuse_layers(model)
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert error(gradients, expected) < tolerance
    assert {gradient.dtype for gradient in gradients.values()} == {dtype}
    assert all(expected[name].abs().max() > 0 for name in expected)
    ranks = [[group.base.rank for group in layer.groups] for layer in layers]
    assert ranks == [[24, 8, 16, 8] if rank == 8 else [16, 8, 8, 8]] * 3


@pytest.mark.parametrize(
    "targets",
    [("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj"), ("o_proj",), ("down_proj",)],
)
def test_groups_without_adapters_are_the_base_alone(targets):
    options = {"targets": targets, "dtype": torch.float64}
    plain, model = lift_norms(adapted(**options)), adapted(**options)
    assert len(fuse_layers(model)) == 3
    expected_loss, expected = gradients_of(plain, separate_loss(plain, ROWS))
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert error(gradients, expected) < 1e-12


def test_gradient_passes_through_layers_without_adapters():
    targets = ("layers.0.mlp.down_proj", "layers.2.mlp.down_proj")
    options = {"targets": targets, "dtype": torch.float64}
    plain, model = lift_norms(adapted(**options)), adapted(**options)
    fuse_layers(model)
    _, expected = gradients_of(plain, separate_loss(plain, ROWS))
    packed_loss(model, ROWS).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name in gradients if gradients[name] is None] == []
    assert error(gradients, expected) < 1e-12


@pytest.mark.parametrize("learned", [True, False], ids=["learned adapters", "frozen adapters"])
def test_gradient_by_the_embeddings_is_pefts(learned):
    """What a layer passes on to those before it."""
    plain, model = lift_norms(adapted(dtype=torch.float64)), adapted(dtype=torch.float64)
    fuse_layers(model)
    batch, labels = pack(ROWS)
    ids = batch.pop("input_ids")
    by_embeddings = []
    for each in (plain, model):
        for name, parameter in each.named_parameters():
            parameter.requires_grad_(learned and "lora_" in name)
        embedded = each.get_input_embeddings().weight[ids].detach().requires_grad_()
        logits = each(**batch, inputs_embeds=embedded, use_cache=False).logits[0]
        torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100).backward()
        by_embeddings.append(embedded.grad)
    torch.testing.assert_close(by_embeddings[1], by_embeddings[0], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_as_near_as_pefts(family):
    rows = some_rows([40, 1, 60, 27])
    config = copy.deepcopy(FAMILIES[family])
    config.initializer_range = 0.1

    def build():
        return lifted_adapters(adapt(base_model(config).to(torch.bfloat16), dtype=torch.bfloat16))

    plain, model, exact = build(), build(), build().float()
    fuse_layers(model)
    expected_loss, expected = gradients_of(exact, separate_loss(exact, rows))
    loss, gradients = gradients_of(model, packed_loss(model, rows))
    with torch.autocast("cpu", torch.bfloat16):
        _, usual = gradients_of(plain, packed_loss(plain, rows))
        within_autocast = packed_loss(model, rows).item()
    assert loss == pytest.approx(expected_loss, rel=2e-3)
    assert error(gradients, expected) < 0.02
    assert error(gradients, expected) < 1.3 * error(usual, expected)
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    assert within_autocast == loss


@pytest.mark.parametrize("rank", [3, 8])
def test_nf4_base(by_nf4, rank):
    plain, model = by_nf4(rank=rank), by_nf4(rank=rank)
    fuse_layers(model)
    expected_loss, expected = gradients_of(plain, separate_loss(plain, ROWS))
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert error(gradients, expected) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [3, 8])
def test_weights_that_stay_dequantised_give_the_same_numbers(by_nf4, rank, dtype):
    packed, kept = by_nf4(rank=rank).to(dtype), by_nf4(rank=rank).to(dtype)
    fuse_layers(packed)
    layers = fuse_layers(kept, keep_dequantized=dtype)
    assert all(group.base.kept.dtype == dtype for layer in layers for group in layer.groups)
    loss, gradients = gradients_of(packed, packed_loss(packed, ROWS))
    # Twice: products write their adapters' matrices beside the weights that are kept.
    for _ in range(2):
        kept_loss, kept_gradients = gradients_of(kept, packed_loss(kept, ROWS))
        assert kept_loss == loss
        assert all(torch.equal(kept_gradients[name], gradients[name]) for name in gradients)


@pytest.mark.parametrize("recomputed", [[True] * 3, [True, False, False], [False, True, False]])
@pytest.mark.parametrize("rank", [3, 8])
def test_recomputation_changes_nothing(rank, recomputed):
    model = adapted(rank=rank)
    layers = fuse_layers(model)
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    for layer, again in zip(layers, recomputed, strict=True):
        layer.recompute = again
    again_loss, again_gradients = gradients_of(model, packed_loss(model, ROWS))
    assert again_loss == loss
    assert error(again_gradients, gradients) < 1e-6


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("tokens", [25, 24, 7, 1])
def test_feed_forward_in_pieces_is_the_same(monkeypatch, tokens, recompute):
    model = adapted(dtype=torch.float64)
    for layer in fuse_layers(model):
        layer.recompute = recompute
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    monkeypatch.setattr(fused_layers, "FEED_FORWARD_TOKENS", tokens)
    piece_loss, piece_gradients = gradients_of(model, packed_loss(model, ROWS))
    assert piece_loss == pytest.approx(loss, rel=1e-12)
    assert error(piece_gradients, gradients) < 1e-12


@pytest.mark.parametrize("lengths", [[9], [1], [1, 1, 1], [2, 30]])
def test_packs_of_any_rows(lengths):
    rows = [*some_rows(lengths), [3, 4]]
    plain, model = lift_norms(adapted(dtype=torch.float64)), adapted(dtype=torch.float64)
    fuse_layers(model)
    expected_loss, expected = gradients_of(plain, separate_loss(plain, rows))
    loss, gradients = gradients_of(model, packed_loss(model, rows))
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert error(gradients, expected) < 1e-12


@pytest.mark.parametrize("family", ["llama", "mistral, sliding window"])
def test_a_planted_leak_is_seen(monkeypatch, family):
    """Attention that crosses rows fails every comparison above."""

    def leaking(query, key, value, rows, **options):
        whole = RowBounds(torch.tensor([0, len(query)]), len(query), (0, len(query)))
        return attend_rows(query, key, value, whole, **options)

    plain, model = adapted(family), adapted(family)
    fuse_layers(model)
    expected_loss, expected = gradients_of(plain, separate_loss(plain, ROWS))
    monkeypatch.setattr(fused_layers, "attend_rows", leaking)
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    assert loss != pytest.approx(expected_loss, rel=1e-3)
    assert error(gradients, expected) > 0.01


def test_bounds_on_the_host_serve_instead():
    model = adapted()
    fuse_layers(model)
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    # Nobody reads those on the device, and so nobody waits for it.
    edges, nowhere = tuple(pack(ROWS)[0]["cu_seq_lens_q"].tolist()), torch.tensor([0, 0], dtype=torch.int32)
    same_loss, same = gradients_of(model, packed_loss(model, ROWS, row_edges=edges, cu_seq_lens_q=nowhere))
    assert same_loss == loss
    assert all(torch.equal(same[name], gradients[name]) for name in gradients)


def test_scores_are_scaled_as_the_attention_says():
    losses = []
    for fused in (False, True):
        model = adapted()
        for layer in decoder_layers(model):
            layer.self_attn.scaling = 0.1
        if fused:
            fuse_layers(model)
        losses.append(packed_loss(model, ROWS).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[1] != pytest.approx(packed_loss(adapted(), ROWS).item(), rel=1e-3)
