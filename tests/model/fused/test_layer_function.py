"""What fused layers and norms keep for the backward pass, what is computed again, and that nothing outlives its use."""

import weakref

import pytest
import torch
from packed_models import adapted, gradients_of, pack, packed_loss, some_rows
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from medtune.model.fused import layers as fused_layers
from medtune.model.fused.layer_function import fuse_norm
from medtune.model.fused.layers import FusedLayer, fuse_layers

ROWS = some_rows()
GROUPS = ("qkv", "output", "gate_up", "down")


@pytest.fixture
def products(monkeypatch):
    """Counts how often each group of a layer asks for its base weights: once for each product with them."""
    counts = {}

    def watch(layers):
        for number, layer in enumerate(layers):
            for name in GROUPS:
                base = getattr(layer, name).base
                monkeypatch.setattr(base, "matrix", counted(base.matrix, (number, name)))

    def counted(matrix, key):
        def asked(dtype):
            counts[key] = counts.get(key, 0) + 1
            return matrix(dtype)

        return asked

    def read(number):
        return [counts.pop((number, name), 0) for name in GROUPS]

    watch.read = read
    return watch


@pytest.mark.parametrize("pieces", [1, 5])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rank", [3, 8])
def test_products_with_the_base(products, monkeypatch, rank, recompute, pieces):
    monkeypatch.setattr(fused_layers, "FEED_FORWARD_TOKENS", -(-25 // pieces))
    model = adapted(rank=rank)
    layers = fuse_layers(model)
    for layer in layers:
        layer.recompute = recompute
    products(layers)
    loss = packed_loss(model, ROWS)
    assert [products.read(number) for number in range(3)] == [[1, 1, pieces, pieces]] * 3
    loss.backward()
    # The gradient of a product's input is one more; the first layer's input needs none. The last
    # product, which no gradient needs, is not computed again.
    again = 1 if recompute else 0
    behind = [1 + again, 1 + again, (1 + again) * pieces, pieces]
    assert [products.read(number) for number in range(3)] == [[again, *behind[1:]], behind, behind]


def test_the_first_layer_passes_a_gradient_on_where_it_is_asked_for(products):
    model = adapted()
    layers = fuse_layers(model)
    batch, _ = pack(ROWS)
    embedded = model.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_()
    products(layers)
    model(**batch, inputs_embeds=embedded, use_cache=False).logits.sum().backward()
    assert products.read(0) == [2, 2, 2, 2]
    assert embedded.grad.abs().max() > 0


@pytest.fixture
def kept(monkeypatch):
    """Weak references to what layers keep, by what it is, in the order in which they are computed."""
    references = {"middle": [], "attended": [], "query": [], "gate_up": [], "input": []}
    compute = FusedLayer.compute

    def watched(self, x, packing, adapters, kept=None):
        output = compute(self, x, packing, adapters, kept)
        references["input"].append(weakref.ref(x))
        for state in kept or ():
            references["middle"].append(weakref.ref(state.middle))
            references["attended"].append(weakref.ref(state.attended))
            references["query"].append(weakref.ref(state.qkv[0]))
            references["gate_up"] += [weakref.ref(piece.gate_up) for piece in state.pieces]
            assert state.normed is None
            assert all(piece.normed is None for piece in state.pieces)
        return output

    monkeypatch.setattr(FusedLayer, "compute", watched)
    return references


def alive(references):
    return sum(reference() is not None for reference in references)


def test_backward_frees_what_was_kept(kept):
    model = adapted()
    fuse_layers(model)
    loss = packed_loss(model, ROWS)
    assert {name: alive(kept[name]) for name in kept if name != "input"} == {
        "middle": 3, "attended": 3, "query": 3, "gate_up": 3
    }  # fmt: skip
    loss.backward()
    # While the loss, and with it the graph, is still there.
    assert {name: alive(kept[name]) for name in kept if name != "input"} == dict.fromkeys(
        ("middle", "attended", "query", "gate_up"), 0
    )


def test_attention_that_would_keep_too_much_is_computed_again(kept, monkeypatch):
    """What a GPU without kernels for rows of any lengths does: the same gradient, and no graph in between."""
    expected, model = adapted(), adapted()
    fuse_layers(expected)
    _, expected_gradients = gradients_of(expected, packed_loss(expected, ROWS))
    monkeypatch.setattr(fused_layers, "spreads_key_heads", lambda *args: True)
    fuse_layers(model)
    loss = packed_loss(model, ROWS)
    assert not any(reference().requires_grad for reference in kept["attended"][-3:])
    _, gradients = gradients_of(model, loss)
    assert all(torch.equal(gradients[name], gradient) for name, gradient in expected_gradients.items())


def test_a_graph_that_is_dropped_frees_what_was_kept(kept):
    model = adapted()
    fuse_layers(model)
    loss = packed_loss(model, ROWS)
    del loss
    assert sum(alive(references) for references in kept.values()) == 0


def test_layers_behind_free_theirs_before_those_in_front_compute_again(kept, monkeypatch):
    model = adapted()
    layers = fuse_layers(model)
    layers[0].recompute = True
    loss = packed_loss(model, ROWS)
    assert len(kept["middle"]) == alive(kept["middle"]) == 2
    seen = []
    for layer in layers:
        backward = layer.backward

        def watched(*args, backward=backward, **options):
            result = backward(*args, **options)
            seen.append(alive(kept["middle"]))
            return result

        monkeypatch.setattr(layer, "backward", watched)
    loss.backward()
    # Each holds its own until it returns.
    assert seen == [2, 1, 0]


def test_recomputed_layers_keep_their_inputs_alone(kept):
    model = adapted()
    for layer in fuse_layers(model):
        layer.recompute = True
    batch, labels = pack(ROWS)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.shape) or x, lambda x: x):
        saved = []
        logits = model(**batch, use_cache=False).logits[0]
    assert kept["middle"] == kept["attended"] == kept["gate_up"] == []
    # For all tokens, only the three layers' inputs and the last norm's are saved.
    assert [tuple(shape) for shape in saved if 25 in shape and shape.numel() > 25] == [(1, 25, 32)] * 3 + [(25, 32)]
    torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100).backward()


def test_pieces_are_freed_one_by_one(kept, monkeypatch):
    monkeypatch.setattr(fused_layers, "FEED_FORWARD_TOKENS", 5)
    model = adapted()
    fuse_layers(model)
    loss = packed_loss(model, ROWS)
    counts = []
    backward = FusedLayer._feed_forward_backward

    def watched(self, *args):
        counts.append(alive(kept["gate_up"]))
        return backward(self, *args)

    monkeypatch.setattr(FusedLayer, "_feed_forward_backward", watched)
    loss.backward()
    assert counts == list(range(15, 0, -1))


def test_nothing_is_kept_without_gradients(kept):
    model = adapted()
    fuse_layers(model)
    with torch.no_grad():
        loss = packed_loss(model, ROWS)
    assert loss.grad_fn is None
    assert len(kept["input"]) == 3
    assert sum(alive(references) for references in kept.values()) == 0


def test_parameters_changed_since_the_forward_pass_are_refused():
    """The backward pass computes with what the parameters are then."""
    for recompute in (False, True):
        model = adapted()
        for layer in fuse_layers(model):
            layer.recompute = recompute
        loss = packed_loss(model, ROWS)
        with torch.no_grad():
            next(p for p in model.parameters() if p.requires_grad).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_gradients_add_up_over_passes():
    model = adapted(dtype=torch.float64)
    fuse_layers(model)
    first, second = some_rows([9, 4]), some_rows([12])
    _, one = gradients_of(model, packed_loss(model, first))
    _, two = gradients_of(model, packed_loss(model, second))
    losses = [packed_loss(model, rows) for rows in (first, second)]
    for loss in losses:  # two graphs at once
        loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, one[name] + two[name], rtol=1e-10, atol=1e-14)


def norm():
    module = LlamaRMSNorm(16, eps=1e-5).requires_grad_(False)
    module.weight += torch.linspace(-0.5, 0.5, 16)
    return module


def test_outputs_and_gradients_of_norms_are_those_of_transformers():
    plain, fused = norm(), norm()
    fuse_norm(fused)
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    wanted = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    found = []
    for module in (plain, fused):
        own = x.clone().requires_grad_()
        output = module(own)
        output.backward(wanted)
        found.append((output.detach(), own.grad))
    torch.testing.assert_close(found[1], found[0])


def test_a_gradient_that_somebody_else_has_too_is_not_written_over():
    module = norm()
    fuse_norm(module)
    x = torch.randn(3, 16, requires_grad=True)
    gradient = torch.ones(3, 16)
    module(x).backward(gradient)
    assert torch.equal(gradient, torch.ones(3, 16))
