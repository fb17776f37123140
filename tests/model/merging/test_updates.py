"""What an adapter adds: the numbers of PEFT, for every kind of adapter that is merged, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from merge_checks import assert_same, by_peft, edited, load, merge, refused, save_adapter


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"target_modules": ["q_proj", "down_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["seven projections", "rank-stabilised", "patterns", "embeddings", "modules to save"],
)
def test_a_float32_merge_is_pefts_bit_for_bit(tiny, tmp_path, settings):
    adapter = save_adapter(tiny.path, tmp_path / "adapter", **settings)
    merged = load(merge(tiny.path, adapter, tmp_path / "merged")).state_dict()
    assert_same(merged, by_peft(tiny.path, adapter).state_dict())
    assert any(not torch.equal(merged[name], value) for name, value in load(tiny.path).state_dict().items())


def small_model(kind: str, folder: Path) -> Path:
    """A random model of two layers of another structure."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300, "pad_token_id": 0}
    if kind != "gpt2":
        sizes |= {"intermediate_size": 96, "num_key_value_heads": 2, "tie_word_embeddings": False}
    config = AutoConfig.for_model(kind, **sizes, bos_token_id=1, eos_token_id=2)
    with torch.random.fork_rng(devices=[]):
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("qwen2", {"target_modules": ["q_proj", "up_proj"], "bias": "all"}),
        ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    ],
    ids=["trained biases", "joined projections", "weights the other way round"],
)
def test_other_structures(tmp_path, kind, settings):
    base = small_model(kind, tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", **settings)
    merged = load(merge(base, adapter, tmp_path / "merged")).state_dict()
    assert_same(merged, by_peft(base, adapter).state_dict())


def test_an_adapter_of_another_model(tiny, adapter, tmp_path):
    other = shutil.copytree(tiny.path, tmp_path / "other")
    config = json.loads((other / "config.json").read_text()) | {"num_hidden_layers": 1}
    (other / "config.json").write_text(json.dumps(config))
    refused(other, adapter, "no place in the model, such as", tmp_path)
    config |= {"num_hidden_layers": 2, "intermediate_size": 96}
    (other / "config.json").write_text(json.dumps(config))
    refused(other, adapter, "has shape", tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_adapter(tiny, adapter, tmp_path, value):
    def spoil(weights):
        next(iter(weights.values()))[0, 0] = value

    refused(tiny.path, edited(tmp_path / "adapter", adapter, spoil), "holds NaN, infinite", tmp_path)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "rank_pattern": {"q_proj": 2}}], ids=str)
def test_dora_is_merged_to_pefts_numbers(tiny, tmp_path, settings):
    adapter = save_adapter(tiny.path, tmp_path / "adapter", use_dora=True, **settings)
    merged = load(merge(tiny.path, adapter, tmp_path / "merged")).state_dict()
    expected = by_peft(tiny.path, adapter).state_dict()
    assert merged.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, atol=1e-6, rtol=1e-5)


def test_dora_of_weights_the_other_way_round_is_refused(tmp_path):
    base = small_model("gpt2", tmp_path / "base")
    adapter = save_adapter(base, tmp_path / "adapter", target_modules=["c_attn"], fan_in_fan_out=True, use_dora=True)
    refused(base, adapter, "DoRA is merged into linear layers alone", tmp_path)
