"""Merged weights: rounded once, the same in blocks of any size, finite, and in little memory."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from merge_checks import SEVEN, assert_same, by_peft, edited, load, merge, refused
from safetensors.torch import load_file, save_file

from forked import fork
from medtune.model.merging.planning import plan_merge
from medtune.model.merging.weights import BLOCK_BYTES, write_merge
from medtune.model.tensor_files import TensorFileWriter

CHILD = """
import json, sys
from pathlib import Path
from medtune.runtime.hardware import PeakMemory
from medtune.model.merging.planning import plan_merge
from medtune.model.merging.weights import write_merge
base, adapter, folder = map(Path, sys.argv[1:])
plan_merge(base, adapter, name="x", dtype="bfloat16")  # what Python and its libraries take
memory = PeakMemory()
before = memory.rss_bytes()
plan = plan_merge(base, adapter, name="x", dtype="bfloat16")
write_merge(plan, folder)
print(json.dumps({"bytes": plan.bytes, "grown": memory.rss_bytes() - before, "peak": memory.rss_bytes()}))
"""


def test_the_merged_model_answers_as_base_and_adapter(tiny, adapter, tmp_path):
    from peft import PeftModel

    ids = torch.randint(10, 300, (2, 20), generator=torch.Generator().manual_seed(0))
    merged = load(merge(tiny.path, adapter, tmp_path / "merged"))
    worn = PeftModel.from_pretrained(load(tiny.path), adapter).eval()
    with torch.no_grad():
        found, expected, before = (model(input_ids=ids).logits for model in (merged, worn, load(tiny.path)))
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(before, expected, atol=0.1)


def test_sixteen_bit_weights_are_rounded_once(tiny, adapter, tmp_path):
    base = shutil.copytree(tiny.path, tmp_path / "base")
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    merged = load_file(merge(base, adapter, tmp_path / "merged", "bfloat16") / "model.safetensors")
    exact = by_peft(base, adapter).state_dict()  # in float32
    assert_same(merged, {name: exact[name].to(torch.bfloat16) for name in merged})


def test_blocks_of_any_size_give_the_same(tiny, adapter, tmp_path):
    plan = plan_merge(tiny.path, adapter, name="the base", dtype="bfloat16")
    folders = [tmp_path / "whole", tmp_path / "blocks"]
    seen = []
    for folder, size in zip(folders, (BLOCK_BYTES, 5000), strict=True):
        folder.mkdir()
        counts = []
        write_merge(plan, folder, on_bytes=counts.append, block_bytes=size)
        assert sum(counts) == plan.bytes
        seen.append(len(counts))
    assert seen[0] < seen[1]
    whole, parts = (load_file(folder / "model.safetensors") for folder in folders)
    # A matrix product of fewer rows may take another kernel.
    assert all(torch.allclose(whole[name].float(), parts[name].float(), rtol=1e-2, atol=1e-5) for name in whole)
    assert whole.keys() == parts.keys()


def test_numbers_beyond_float16_are_named(tiny, adapter, tmp_path):
    def grow(weights):
        for name, weight in weights.items():
            if "layers.1.mlp.down_proj" in name:
                weight *= 10_000

    large = edited(tmp_path / "adapter", adapter, grow)
    refused(tiny.path, large, r"model\.layers\.1\.mlp\.down_proj\.weight: .*beyond float16", tmp_path, "float16")
    merge(tiny.path, large, tmp_path / "bfloat16", "bfloat16")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset through /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """One matrix alone is far larger than what merging takes."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    base = tmp_path / "base"
    sizes = {"hidden_size": 512, "intermediate_size": 4096, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=160_000, dtype=torch.bfloat16)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    config.save_pretrained(base)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in model.state_dict().items()}
    with TensorFileWriter(base / "model.safetensors", shapes) as writer:
        for dtype, shape in shapes.values():
            writer.write(torch.full(shape, 0.01, dtype=dtype))
    with torch.device("meta"):
        wrapped = get_peft_model(model, LoraConfig(r=8, target_modules=[*SEVEN, "lm_head"], task_type="CAUSAL_LM"))
    weights = {
        name.replace(".default", ""): torch.full(parameter.shape, 0.01)
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    (tmp_path / "merged").mkdir()
    wrapped.peft_config["default"].save_pretrained(tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    done = fork(script, base, tmp_path, tmp_path / "merged").finish()
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["bytes"] > 350e6
    assert found["grown"] < 200e6, found
