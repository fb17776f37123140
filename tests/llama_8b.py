"""LLaMA-3-8B's configuration, for what needs a model's shape and no weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medtune.config.recipes import load_recipe
from medtune.config.schema import Config
from medtune.runtime.gpus import GPUS

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14_336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with config.json and nothing else."""
    folder = tmp_path_factory.mktemp("llama-3-8b")
    (folder / "config.json").write_text(json.dumps(LLAMA_3_8B), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def llama_config(llama_folder: Path) -> Config:
    """The recipe for a T4, of that model."""
    return load_recipe("llama3-8b-t4", [f"model.base={llama_folder}"])


@pytest.fixture(scope="session")
def llama_on_h200(llama_config: Config, llama_folder: Path):
    """The `DescribedModel` as it would be loaded on an H200."""
    from medtune.training.plan.forecast import describe_model

    return describe_model(llama_config, llama_folder, GPUS["h200"], "bfloat16")
