"""Adapters: float32, seeded, and refused where they do not fit."""

import json
import shutil

import pytest
import torch

from medtune.config.schema import Config
from medtune.config.training import LoraSection
from medtune.errors import ModelError
from medtune.model.adapters import (
    adapter_base,
    adapter_config,
    adapter_settings,
    attach_adapter,
    attach_new_adapter,
    merged_config,
    resolve_adapter,
)
from medtune.storage.hub import ADAPTER_SETTINGS


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_new_adapters_are_float32_and_depend_on_the_seed_alone(tiny):
    first = weights(attach_new_adapter(tiny.load(), LoraSection(), seed=1))
    torch.rand(3)
    again = weights(attach_new_adapter(tiny.load(), LoraSection(), seed=1))
    other = weights(attach_new_adapter(tiny.load(), LoraSection(), seed=2))
    assert len(first) == 2 * 7 * 2
    assert all(value.dtype == torch.float32 for value in first.values())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_rank_alpha_dropout_and_targets_arrive(tiny):
    lora = LoraSection(rank=3, alpha=5.0, dropout=0.25, targets=("q_proj", "down_proj"))
    model = attach_new_adapter(tiny.load(), lora, seed=0)
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5.0, 0.25)
    assert set(config.target_modules) == {"q_proj", "down_proj"}
    assert len(weights(model)) == 2 * 2 * 2


def test_unknown_target(tiny):
    with pytest.raises(ModelError, match=r"lora\.targets"):
        attach_new_adapter(tiny.load(), LoraSection(targets=("no_such_layer",)), seed=0)


@pytest.fixture(scope="module")
def stored(tiny, tmp_path_factory):
    model = attach_new_adapter(tiny.load(), LoraSection(rank=4), seed=0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder, weights(model)


def test_an_existing_adapter_comes_back_trainable(tiny, stored):
    folder, expected = stored
    found = weights(attach_adapter(tiny.load(), resolve_adapter(str(folder)), trainable=True))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    frozen = attach_adapter(tiny.load(), folder, trainable=False)
    assert weights(frozen) == {}
    assert adapter_base(folder) == str(tiny.path)


def test_an_adapter_of_another_shape_is_refused(tiny, stored, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(stored[0], wrong)
    config = json.loads((wrong / "adapter_config.json").read_text())
    (wrong / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    with pytest.raises(ModelError, match=r"does not fit .* has shape \(4, 64\), and its place \(8, 64\)"):
        attach_adapter(tiny.load(), wrong, trainable=False)


def test_what_is_no_adapter(tmp_path):
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        resolve_adapter(str(tmp_path))
    with pytest.raises(ModelError, match="no such adapter folder"):
        resolve_adapter(str(tmp_path / "nowhere"))
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        resolve_adapter(str(tmp_path))
    with pytest.raises(ModelError, match=r"adapter_config\.json: peft_type: field required"):
        adapter_base(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["q_proj"]}')
    with pytest.raises(ModelError, match="names no base model"):
        adapter_base(tmp_path)


@pytest.mark.parametrize(
    ("model", "template"),
    [({}, None), ({"chat_template": "mine.jinja"}, "chat_template.jinja"), ({"adapter": "a/b"}, "chat_template.jinja")],
)
def test_an_adapter_brings_the_template_and_the_settings_that_it_was_trained_with(stored, tmp_path, model, template):
    folder = shutil.copytree(stored[0], tmp_path / "adapter")
    settings = {"enable_thinking": False}
    config = Config.model_validate(
        {"model": {"base": "tiny", "template_settings": settings, **model}, "data": {"source": "none"}}
    )
    (folder / ADAPTER_SETTINGS).write_text(json.dumps(adapter_settings(config)))
    (folder / "adapter_config.json").write_text(
        json.dumps(json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": "tiny"})
    )
    for found in (adapter_config(folder).model, merged_config(folder).model):
        assert found.template_settings == settings
        assert found.chat_template == (template and str(folder / template))
