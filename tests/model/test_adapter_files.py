"""A stored adapter: plain LoRA and nothing else, with all of its weights, in its own folder."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from medtune.config.schema import LoraSection
from medtune.errors import ModelError
from medtune.model.adapter_files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    read_adapter_config,
    require_own_files,
    weight_problem,
    weight_shapes,
)
from medtune.model.adapters import attach_new_adapter


@pytest.fixture(scope="module")
def adapted(tiny):
    return attach_new_adapter(tiny.load(), LoraSection(rank=4, targets=["q_proj", "down_proj"]), seed=0)


@pytest.fixture
def folder(adapted, tmp_path):
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def configured(folder, **values):
    file = folder / CONFIG_NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_what_peft_writes_is_read(folder):
    values = read_adapter_config(folder)
    assert (values["r"], sorted(values["target_modules"]), values["use_dora"]) == (4, ["down_proj", "q_proj"], False)
    assert "peft_version" not in values


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("peft_type", "NEW", "peft_type: input should be 'LORA'"),
        ("peft_type", "IA3", "IA3, which scales activations by trained vectors, and has no low-rank product; medtune"),
        ("peft_type", "LOHA", "LOHA, which multiplies two low-rank products element by element; medtune reads LoRA, "),
        ("peft_type", "VERA", "VERA, which shares random matrices among layers and trains vectors between them; "),
        (
            "peft_type",
            "PROMPT_TUNING",
            "PROMPT_TUNING, which puts trained vectors before every prompt, which no merged",
        ),
        ("task_type", "NEW", "task_type: input should be 'CAUSAL_LM'"),
        ("task_type", "SEQ_CLS", "an adapter for SEQ_CLS, whose model writes no answers; give one for CAUSAL_LM"),
        ("r", 0, "r: input should be greater than or equal to 1"),
        ("lora_alpha", True, "lora_alpha: input should be a valid number"),
        ("lora_dropout", 1.0, "lora_dropout: input should be less than 1"),
        ("target_modules", [], "target_modules: list should have at least 1 item"),
        ("init_lora_weights", "elsewhere", "init_lora_weights: input should be"),
        (
            "init_lora_weights",
            "pissa_niter_4",
            "started by pissa, which changed its base's weights: it does not fit the untouched base; save it ",
        ),
        ("init_lora_weights", "loftq", "started by loftq, which changed its base's weights: it does not fit"),
        ("auto_mapping", {"base_model_class": "Evil", "parent_library": "os"}, "auto_mapping is not of a plain LoRA"),
        ("layer_replication", [[0, 2]], "layer_replication is not of a plain LoRA"),
        ("target_modules", "(a*)*b", "target_modules is no pattern, or one that could take forever"),
        ("target_modules", "(", "target_modules is no pattern"),
        ("exclude_modules", "(x+)+", "exclude_modules is no pattern"),
    ],
)
def test_what_is_no_plain_lora_is_named(folder, name, value, problem):
    configured(folder, **{name: value})
    with pytest.raises(ModelError) as caught:
        read_adapter_config(folder)
    assert str(caught.value).startswith(f"{folder / CONFIG_NAME}: {problem}")


def test_settings_without_effect_and_those_that_nobody_knows_are_passed_over(folder):
    expected = read_adapter_config(folder)
    configured(folder, peft_version="99", inference_mode=False, of_a_later_version=[1], layer_replication=None)
    assert read_adapter_config(folder) == expected


def test_a_folder_without_a_configuration(tmp_path):
    with pytest.raises(ModelError, match=r"adapter_config\.json: missing; fetch or save the adapter again"):
        read_adapter_config(tmp_path)


def test_links_out_of_the_folder_are_refused_and_those_of_the_hubs_cache_are_not(folder, tmp_path):
    require_own_files(folder)
    outside = tmp_path / "secret.json"
    os.replace(folder / CONFIG_NAME, outside)
    (folder / CONFIG_NAME).symlink_to(outside)
    with pytest.raises(ModelError, match=r"adapter_config\.json: a link out of its folder, to .*secret\.json; put"):
        require_own_files(folder)
    snapshot, blobs = tmp_path / "models--a--b/snapshots/c0ffee", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    os.replace(outside, blobs / "1234")
    (snapshot / CONFIG_NAME).symlink_to("../../blobs/1234")
    require_own_files(snapshot)


def test_shapes_are_read_from_the_header(folder):
    shapes = weight_shapes(folder)
    assert len(shapes) == 2 * 2 * 2
    assert sorted(set(shapes.values())) == [(4, 64), (4, 128), (64, 4)]
    (folder / WEIGHTS_NAME).write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: not a safetensors file"):
        weight_shapes(folder)


def changed(folder, change):
    weights = load_file(folder / WEIGHTS_NAME)
    change(weights, sorted(weights)[0])
    save_file(weights, folder / WEIGHTS_NAME)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda weights, name: weights.pop(name), "lacks 1 of the adapter's 8 weights, such as "),
        (lambda weights, name: weights.update({"extra\n": torch.zeros(1)}), r"no place in the model, such as extra\n"),
        (lambda weights, name: weights.update({name: torch.zeros(3, 2)}), "has shape (3, 2), and its place ("),
        (lambda weights, name: weights[name].view(-1)[-1].fill_(float("nan")), "holds NaN, infinite or whole numbers"),
        (lambda weights, name: weights[name].view(-1)[0].fill_(float("inf")), "holds NaN, infinite or whole numbers"),
        (lambda weights, name: weights.update({name: weights[name].int()}), "holds NaN, infinite or whole numbers"),
    ],
    ids=["missing", "surplus", "shape", "nan", "inf", "whole"],
)
def test_weights_that_are_not_the_models(adapted, folder, change, problem):
    assert weight_problem(adapted, folder) is None
    changed(folder, change)
    assert problem in weight_problem(adapted, folder)
