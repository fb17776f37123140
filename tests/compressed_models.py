"""Models as llm-compressor leaves them: packed by compressed-tensors, in what is written here for tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

Scheme = Literal["FP8", "W4A16"]


def write_compressed(folder: Path, to: Path, scheme: Scheme) -> Path:
    """A copy of the model in `folder` with the linear layers' weights packed, but for the head."""
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM

    sizes = {"FP8": {"num_bits": 8, "type": "float", "strategy": "channel"},
             "W4A16": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 16}}  # fmt: skip
    arguments = QuantizationArgs(**sizes[scheme], symmetric=True)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors", "merge.json", "*.index.json"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    groups = {"all": QuantizationScheme(targets=["Linear"], weights=arguments)}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]))
    for layer in model.modules():
        if hasattr(layer, "weight_scale"):
            blocks = layer.weight.unflatten(1, (-1, sizes[scheme].get("group_size", layer.weight.shape[1])))
            scale, _ = calculate_qparams(blocks.amin(-1), blocks.amax(-1), arguments)
            layer.weight_scale.data.copy_(scale)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(to)
    compressor.update_config(to)
    assert json.loads((to / "config.json").read_text())["quantization_config"]["quant_method"] == "compressed-tensors"
    return to
