"""Adapters as people have them, on a base whose layers are called otherwise, or whose vocabulary is another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from merge_checks import assert_same, edited, load, merge, refused, reworded, save_adapter

from medtune.errors import ModelError
from medtune.model.adapter_fit import fit_adapter
from medtune.model.adapters import attach_adapter

PROJECTIONS = ["q_proj", "down_proj"]
IDS = torch.arange(5, 25).unsqueeze(0)


def configured(folder: Path, **values) -> Path:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return folder


def by_peft(base: Path, adapter: Path, rows: int | None = None):
    """PEFT's own loading, on a base with as many rows of embeddings."""
    from peft import PeftModel

    model = load(base)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    return PeftModel.from_pretrained(model, adapter).eval()


def answers(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


# The wrapper's names in the releases of transformers that people save adapters with.
LAYOUTS = {
    "language model inside": ("model.", "model.language_model."),
    "language model outside": ("model.", "language_model.model."),
    "text model": ("model.", "model.text_model."),
    "decoder alone": ("model.", ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_are_found_behind_the_names_of_a_wrapper(tiny, tmp_path, layout, capsys):
    """https://github.com/huggingface/peft/issues/2566 and https://github.com/huggingface/peft/issues/1579"""
    own, other = LAYOUTS[layout]
    settings = {"target_modules": PROJECTIONS, "rank_pattern": {r"layers\.1\..*q_proj": 2}}
    plain = save_adapter(tiny.path, tmp_path / "plain", **settings, alpha_pattern={"down_proj": 3})
    wrapped = reworded(
        tmp_path / "wrapped", plain, lambda name: name.replace(f"base_model.model.{own}", f"base_model.model.{other}")
    )
    configured(
        wrapped, target_modules=rf".*{other}.*(q_proj|down_proj)".replace(".", r"\."[1:]) if other else PROJECTIONS
    )
    expected = answers(by_peft(tiny.path, plain))
    found = attach_adapter(tiny.load(), wrapped, trainable=False)
    torch.testing.assert_close(answers(found), expected, atol=1e-5, rtol=1e-5)
    assert "made on a model of other names" in capsys.readouterr().err
    merged = load(merge(tiny.path, wrapped, tmp_path / "merged")).state_dict()
    assert_same(merged, load(merge(tiny.path, plain, tmp_path / "other")).state_dict())


def test_a_tower_that_sees_is_named(tiny, tmp_path):
    plain = save_adapter(tiny.path, tmp_path / "plain", target_modules=PROJECTIONS)
    blind = reworded(
        tmp_path / "blind", plain, lambda name: name.replace(".model.layers.1.", ".vision_tower.layers.1.")
    )
    with pytest.raises(ModelError, match=r"trains 2 layers that do not read text, such as vision_tower\.layers\.1\."):
        attach_adapter(tiny.load(), blind, trainable=False)


def test_patterns_are_regular_expressions_as_peft_reads_them(tiny, tmp_path):
    adapter = save_adapter(
        tiny.path,
        tmp_path / "adapter",
        target_modules=r".*\.(self_attn\.[qk]_proj|mlp\.up_proj)",
        rank_pattern={r"model\.layers\.[1-9]\.self_attn\.(q|k)_proj": 2, "up_proj": 6},
        alpha_pattern={r".*\.0\.mlp\.up_proj": 3.5, r"^model\.layers\.1\.mlp\.up_proj": 20},
    )
    found = attach_adapter(tiny.load(), adapter, trainable=False)
    assert torch.equal(answers(found), answers(by_peft(tiny.path, adapter)))
    up = [found.get_submodule(f"base_model.model.model.layers.{number}.mlp.up_proj") for number in (0, 1)]
    assert [layer.scaling["default"] for layer in up] == [3.5 / 6, 20 / 6]


@pytest.mark.parametrize("key", ["(q", "(a*)*b", "x" * 1001])
def test_patterns_that_are_none_or_never_end(tiny, tmp_path, key):
    adapter = save_adapter(tiny.path, tmp_path / "adapter", target_modules=PROJECTIONS)
    with pytest.raises(ModelError, match="rank_pattern"):
        attach_adapter(tiny.load(), configured(adapter, rank_pattern={key: 4}), trainable=False)


KINDS = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "dora": {"use_dora": True},
    "dora and rslora": {"use_dora": True, "use_rslora": True, "target_modules": PROJECTIONS},
    "tokens": {"target_modules": PROJECTIONS, "trainable_token_indices": [5, 9, 11]},
    "tokens by name": {"target_modules": PROJECTIONS, "trainable_token_indices": {"embed_tokens": [7, 3]}},
    "whole embeddings": {"target_modules": PROJECTIONS, "modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_answer_as_with_peft(tiny, tmp_path, kind):
    adapter = save_adapter(tiny.path, tmp_path / "adapter", **KINDS[kind])
    expected = answers(by_peft(tiny.path, adapter))
    found = attach_adapter(tiny.load(), adapter, trainable=False)
    assert torch.equal(answers(found), expected)
    assert not torch.allclose(answers(load(tiny.path)), expected)
    merged = load(merge(tiny.path, adapter, tmp_path / "merged"))
    torch.testing.assert_close(answers(merged), expected, atol=2e-4, rtol=2e-4)
    if kind == "head":
        with pytest.raises(ModelError, match="has an adapter on the head, which TRL's trainer does not train"):
            attach_adapter(tiny.load(), adapter, trainable=True)


def tied(tiny, folder: Path) -> Path:
    model = load(tiny.path)
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    model.save_pretrained(folder)
    return folder


def resized(base: Path, folder: Path, rows: int, **settings) -> Path:
    """An adapter of a base to whose vocabulary tokens were added, with both embeddings, as PEFT saves it."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = load(base)
        model.resize_token_embeddings(rows, mean_resizing=False)
        model.get_input_embeddings().weight.data.normal_(std=0.2)
        options = {"r": 4, "target_modules": PROJECTIONS, "task_type": "CAUSAL_LM", **settings}
        model = get_peft_model(model, LoraConfig(**options))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.1)
    model.save_pretrained(folder, save_embedding_layers=not settings.get("modules_to_save"))
    return folder


@pytest.mark.parametrize("kind", ["untied", "tied", "modules to save"])
@pytest.mark.parametrize("more", [3, -2])
def test_an_adapter_of_a_resized_vocabulary(tiny, tmp_path, kind, more, capsys):
    """https://github.com/huggingface/peft/issues/2415 and https://github.com/huggingface/peft/pull/1335"""
    base = tied(tiny, tmp_path / "base") if kind == "tied" else tiny.path
    rows = len(tiny.tokenizer) + more
    settings = {"modules_to_save": ["embed_tokens", "lm_head"]} if kind == "modules to save" else {}
    adapter = resized(base, tmp_path / "adapter", rows, **settings)
    assert fit_adapter(load(base), adapter).rows == rows
    expected = answers(by_peft(base, adapter, rows))
    found = attach_adapter(load(base), adapter, trainable=False)
    assert torch.equal(answers(found), expected)
    assert expected.shape[-1] == rows
    said = capsys.readouterr().err
    assert f"embeddings: {rows} rows, as the adapter adapter brings them, in place of the base's" in said
    assert ("it brings embeddings, which take the place of the base's" in said) == (kind != "modules to save")
    merged = load(merge(base, adapter, tmp_path / "merged"))
    assert merged.get_input_embeddings().weight.shape[0] == rows
    torch.testing.assert_close(answers(merged), expected, atol=2e-4, rtol=2e-4)


def test_saved_embeddings_of_the_same_size(tiny, tmp_path):
    adapter = resized(tiny.path, tmp_path / "adapter", len(tiny.tokenizer))
    expected = answers(by_peft(tiny.path, adapter))
    assert torch.equal(answers(attach_adapter(tiny.load(), adapter, trainable=False)), expected)
    merged = load(merge(tiny.path, adapter, tmp_path / "merged"))
    torch.testing.assert_close(answers(merged), expected, atol=2e-4, rtol=2e-4)
    with pytest.raises(ModelError, match="brings embeddings in place of the base's, which a training that starts"):
        attach_adapter(tiny.load(), adapter, trainable=True)


def test_embeddings_that_fit_no_base_are_named(tiny, tmp_path):
    adapter = resized(tiny.path, tmp_path / "adapter", len(tiny.tokenizer) + 3)

    def one_alone(weights):
        del weights["base_model.model.lm_head.weight"]

    alone = edited(tmp_path / "alone", adapter, one_alone)
    refused(tiny.path, alone, r"embed_tokens\.weight has shape \(403, 64\), and its place \(400, 64\)", tmp_path)
    assert fit_adapter(tiny.load(), alone).rows is None

    def few(weights):
        for name in ("base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"):
            weights[name] = weights[name][:16].clone()

    with pytest.raises(ModelError, match=r"has shape \(16, 64\), and its place \(400, 64\)"):
        attach_adapter(tiny.load(), edited(tmp_path / "few", adapter, few), trainable=False)
