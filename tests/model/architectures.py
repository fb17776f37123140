"""Tiny random models of the families that people fine-tune, each with a chat template of its family's form.

What makes a family compute something else is switched on and small enough to matter: windows shorter than the rows,
caps on scores and logits that bend, rotary scaling from the first tokens on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_model import build_tokenizer

# Rows of 64 weights are what NF4 quantises by; heads of 16 leave two rotary halves of 8.
SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.1,
}  # fmt: skip
LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# An answer comes behind an empty thought, which the generation prompt does not hold.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)


def _chatml() -> Any:
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return build_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML, **names)


def _qwen3() -> Any:
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return build_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"], QWEN3, **names)


def _mistral() -> Any:
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return build_tokenizer(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], MISTRAL, **names)


def _gemma() -> Any:
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return build_tokenizer(["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], GEMMA, **names)


def _phi3() -> Any:
    names = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"}
    tokens = ["<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    return build_tokenizer(tokens, PHI3, **names)


@dataclass(frozen=True)
class Architecture:
    """A family: its configuration's class and what is special about it, its tokenizer, its linear layers."""

    config_class: str
    options: dict[str, Any]
    tokenizer: Callable[[], Any]
    targets: tuple[str, ...] = LLAMA_TARGETS

    def save(self, folder: Path) -> Path:
        """Tokenizer and random float32 weights, whose norms and biases are not the ones and zeros they begin as."""
        import torch
        import transformers

        tokenizer = self.tokenizer()
        special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        config = getattr(transformers, self.config_class)(
            vocab_size=len(tokenizer),
            **{f"{name}_token_id": value for name, value in special.items()},
            **SMALL | self.options,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(config)
            for name, parameter in model.named_parameters():
                if name.endswith("bias") or "norm" in name:
                    parameter.data += torch.randn_like(parameter) * 0.3
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        return folder


_LLAMA31_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
ARCHITECTURES = {
    "LLaMA 3": Architecture("LlamaConfig", {"tie_word_embeddings": False}, build_tokenizer),
    "LLaMA 3.1": Architecture(
        "LlamaConfig", {"rope_parameters": _LLAMA31_ROPE, "tie_word_embeddings": False}, build_tokenizer
    ),
    "LLaMA 3.2": Architecture(
        "LlamaConfig", {"rope_parameters": _LLAMA31_ROPE, "tie_word_embeddings": True}, build_tokenizer
    ),
    "Qwen 2.5": Architecture("Qwen2Config", {"tie_word_embeddings": True}, _chatml),
    "Qwen 2, windows": Architecture(
        "Qwen2Config", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}, _chatml
    ),
    "Qwen 3": Architecture("Qwen3Config", {"tie_word_embeddings": True}, _qwen3),
    "SmolLM 3": Architecture(
        "SmolLM3Config", {"no_rope_layers": [1, 0, 1], "tie_word_embeddings": True, "attention_bias": False}, _chatml
    ),
    "Mistral": Architecture("MistralConfig", {"sliding_window": None}, _mistral),
    "Mistral, window": Architecture("MistralConfig", {"sliding_window": 12}, _mistral),
    "Gemma": Architecture("GemmaConfig", {}, _gemma),
    "Gemma 2": Architecture(
        "Gemma2Config",
        {
            "sliding_window": 12, "query_pre_attn_scalar": 24, "attn_logit_softcapping": 1.5,
            "final_logit_softcapping": 3.0,
        },
        _gemma,
    ),
    "Gemma 3": Architecture(
        "Gemma3TextConfig",
        {
            "sliding_window": 12, "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        _gemma,
    ),
    "Phi 3": Architecture("Phi3Config", {}, _phi3, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")),
    "Phi 3, window": Architecture(
        "Phi3Config", {"sliding_window": 12}, _phi3, ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    ),
}  # fmt: skip
