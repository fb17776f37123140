"""Which models have their decoder layers fused, and that all others stay what they are."""

import pytest
import torch
from packed_models import FAMILIES, SMALL, adapt, adapted, base_model, gradients_of, pack, packed_loss, some_rows
from transformers import Gemma2Config, LlamaConfig, MistralConfig, Qwen3Config

from medtune.model.decoder_structure import can_fuse_layers, decoder_layers, sliding_window
from medtune.model.fused.layers import fuse_layers

OTHERS = {
    "gemma 2: more norms, other activation": Gemma2Config(**SMALL),
    "qwen 3: norms of query and key": Qwen3Config(**SMALL),
    "another activation": LlamaConfig(**SMALL, hidden_act="gelu"),
    "half a head is no power of two": LlamaConfig(**{**SMALL, "head_dim": 12}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_llama_family_is_fused(family):
    model = adapted(family)
    assert can_fuse_layers(model)
    assert can_fuse_layers(base_model(FAMILIES[family]))
    assert decoder_layers(model) == list(model.base_model.model.model.layers)


def forwards(model):
    """The modules whose forward pass was replaced."""
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


def test_what_is_replaced_by_fusing():
    model = adapted()
    assert forwards(model) == []
    fuse_layers(model)
    names = [name.removeprefix("base_model.model.model.") for name in forwards(model)]
    projections = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert [name for name in names if name.count(".") < 2] == ["layers.0", "layers.1", "layers.2", "norm"]
    assert [name.split(".")[-1] for name in names if name.count(".") > 2] == list(projections) * 3


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS.keys())
def test_other_structures_are_left_alone(config):
    model = adapt(base_model(config))
    assert not can_fuse_layers(model)
    assert fuse_layers(model) == []
    assert forwards(model) == []


@pytest.mark.parametrize("lora", [{"dropout": 0.1}, {"targets": ("q_proj", "v_proj")}, {"targets": ("up_proj",)}])
def test_other_adapters_are_left_alone(lora):
    model = adapted(**lora)
    assert not can_fuse_layers(model)
    assert fuse_layers(model) == []
    assert forwards(model) == []


@pytest.mark.parametrize("variant", ["two adapters", "DoRA", "rank-stabilised"])
def test_variants_of_lora(variant):
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    options = {"r": 4, "lora_alpha": 12, "target_modules": targets}
    if variant == "DoRA":
        options["use_dora"] = True
    if variant == "rank-stabilised":
        options["use_rslora"] = True
    models = [get_peft_model(base_model(FAMILIES["llama"]), LoraConfig(**options)) for _ in range(2)]
    if variant == "two adapters":
        models[0].add_adapter("second", LoraConfig(**options))
    assert can_fuse_layers(models[0]) == (variant == "rank-stabilised")
    if variant != "rank-stabilised":
        return
    # Another scale, and nothing else.
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.05)
    fuse_layers(models[0])
    losses = [gradients_of(model, packed_loss(model, some_rows()))[0] for model in models]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_windows_of_layers():
    def windows(model):
        return [sliding_window(layer.self_attn) for layer in decoder_layers(model)]

    assert windows(base_model(FAMILIES["llama"])) == [None] * 3
    assert windows(base_model(FAMILIES["mistral, sliding window"])) == [4] * 3
    assert windows(base_model(FAMILIES["qwen 2, biases and a sliding window"])) == [None, 3, 3]
    assert windows(base_model(MistralConfig(**SMALL, sliding_window=None))) == [None] * 3


def test_a_model_without_decoder_layers_has_none():
    assert decoder_layers(torch.nn.Linear(2, 2)) == []
    assert not can_fuse_layers(torch.nn.Linear(2, 2))


def test_fusing_twice_changes_nothing():
    """Scoring a model right after its training does that."""
    model = adapted().eval()
    fuse_layers(model)
    batch, _ = pack(some_rows())
    with torch.no_grad():
        logits = model(**batch, use_cache=False).logits
        assert len(fuse_layers(model)) == 3
        assert torch.equal(model(**batch, use_cache=False).logits, logits)
