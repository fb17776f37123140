"""First weights of new adapters: where the base is changed or corrected, and what a recipe may not ask for."""

import pytest
import torch
from safetensors.torch import load_file

from medtune.config.recipes import load_recipe
from medtune.config.schema import ModelSection
from medtune.config.training import LoraSection
from medtune.errors import ConfigError, ModelError
from medtune.model.adapters import attach_new_adapter
from medtune.model.first_weights import first_weights
from medtune.model.loading import ModelFiles, load_base_model
from medtune.model.quantization import format_of


def load_packed(tiny):
    section = ModelSection(base=str(tiny.path))
    return load_base_model(ModelFiles(tiny.path, None), section, device="cpu", dtype="float32")


@pytest.mark.parametrize("scale", [{"alpha": 4}, {"alpha": 32}, {"alpha": 16, "rslora": True}], ids=str)
def test_loftq_gives_the_adapter_what_nf4_lost(tiny, scale):
    lora = LoraSection(rank=8, init="loftq", **scale)
    model = attach_new_adapter(load_packed(tiny), lora, 0, base=tiny.path)
    whole = load_file(tiny.path / "model.safetensors")
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"):
        layer = model.get_submodule(f"base_model.model.{name}")
        base = layer.get_base_layer()
        lost = whole[f"{name}.weight"] - format_of(base).dense(base)
        rest = lost - layer.get_delta_weight("default")
        # The best that any adapter of this rank can do, by the whole decomposition.
        best = torch.linalg.svdvals(lost)[8:].norm()
        assert best <= rest.norm() < 1.01 * best < 0.9 * lost.norm()
    again = attach_new_adapter(load_packed(tiny), lora, 0, base=tiny.path)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_loftq_needs_weights_that_were_not_packed(tiny, tmp_path):
    load_packed(tiny).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="needs the 16-bit weights that the base was quantised from"):
        attach_new_adapter(load_packed(tiny), LoraSection(init="loftq"), 0, base=tmp_path)


def test_pissa_starts_where_the_base_is(tiny):
    ids = torch.arange(5, 25).unsqueeze(0)
    expected = tiny.load()(ids).logits
    for init in ("pissa", "pissa_niter_4"):
        lora = LoraSection(rank=4, init=init)
        model = attach_new_adapter(tiny.load(), lora, 0)
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-4, rtol=1e-4)
        start = first_weights(model, lora)
        assert len(start) == 28
        assert all(weight.abs().max() > 0 for weight in start.values())
    assert first_weights(attach_new_adapter(tiny.load(), LoraSection(), 0), LoraSection()) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"lora.init": "pissa"},
            "lora.init pissa takes directions out of the base's own weights, which NF4 has no room",
        ),
        ({"lora.init": "loftq", "model.quantization": "none"}, "lora.init loftq makes up for what NF4 loses; set "),
        ({"lora.init": "loftq", "training.weights": "sharded"}, "lora.init loftq needs whole weights; set training"),
        (
            {"lora": {"init": "pissa", "dora": True, "modules_to_save": ["lm_head"]}, "model.quantization": "none"},
            "init pissa does not go with dora and modules_to_save: it changes the base's weights",
        ),
        ({"lora": {"init": "loftq", "dora": True}}, "init loftq does not go with dora: DoRA's magnitudes"),
        ({"lora.modules_to_save": ["q_proj"]}, "q_proj cannot be in targets and in modules_to_save: one or the other"),
        ({"lora.targets": "(q_proj"}, "'(q_proj' is no regular expression"),
        ({"lora.rank_pattern": {"[": 3}}, "'[' is no regular expression"),
        ({"lora.rank_pattern": {"q_proj": 0}}, "greater than or equal to 1"),
        ({"lora.layers": []}, "must hold at least 1 item"),
        ({"lora": {"use_rslora": True}}, "did you mean lora.rslora?"),
        ({"lora": {"init_lora_weights": "pissa"}}, "did you mean lora.init?"),
    ],
    ids=str,
)
def test_what_a_recipe_may_not_ask_for(changes, problem):
    with pytest.raises(ConfigError) as caught:
        load_recipe("llama3-8b-t4", changes)
    assert problem in str(caught.value)
