"""LLaMA-3-8B's configuration, for what needs a model's shape and no weights."""

from __future__ import annotations

import json
from pathlib import Path

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip


def write_llama_config(folder: Path) -> Path:
    """Write config.json, and nothing else, into `folder`."""
    (folder / "config.json").write_text(json.dumps(LLAMA_3_8B), encoding="utf-8")
    return folder
