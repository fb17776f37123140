"""A small base, an adapter on it, and the two merged: by us, and by PEFT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from medtune.errors import ModelError
from medtune.model.merging.planning import plan_merge
from medtune.model.merging.weights import write_merge

SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(folder: Path, **options):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=options.pop("dtype", torch.float32), **options).eval()


def save_adapter(base: Path, folder: Path, *, scale: float = 0.1, **settings) -> Path:
    """A stored adapter whose weights are all random; the base's copy of trained layers is changed too."""
    from peft import LoraConfig, get_peft_model

    options = {"r": 4, "lora_alpha": 10, "target_modules": SEVEN, "task_type": "CAUSAL_LM", **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = get_peft_model(load(base), LoraConfig(**options))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=scale)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def reworded(folder: Path, source: Path, change) -> Path:
    """A copy of a stored adapter whose weights have other names."""
    copy = shutil.copytree(source, folder)
    file = copy / "adapter_model.safetensors"
    save_file({change(name): weight for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})
    return copy


def merge(base: Path, adapter: Path, folder: Path, dtype: str = "float32", **options) -> Path:
    plan = plan_merge(base, adapter, name="the base", dtype=dtype, **options)
    folder.mkdir(parents=True)
    write_merge(plan, folder)
    config = json.loads((base / "config.json").read_text()) | {"dtype": dtype}
    if plan.vocabulary:
        config["vocab_size"] = plan.vocabulary
    if plan.untied:
        config["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def by_peft(base: Path, adapter: Path):
    from peft import PeftModel

    return PeftModel.from_pretrained(load(base), adapter).merge_and_unload()


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def refused(base, adapter, match, tmp_path, dtype="bfloat16"):
    with pytest.raises(ModelError, match=match) as caught:
        merge(base, adapter, tmp_path / "merged", dtype)
    assert "\n" not in str(caught.value)


def edited(folder: Path, source: Path, change) -> Path:
    """A copy of a stored adapter or model with other weights."""
    copy = shutil.copytree(source, folder)
    file = next(copy.glob("*.safetensors"))
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    return copy
