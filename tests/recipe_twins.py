"""A tiny random twin of each recipe's model: its configuration's class, and a chat template that does as its own does.

The templates are ours, written after what the addresses beside them say and show; the models themselves were not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_model import build_tokenizer

SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.1,
}  # fmt: skip
# An empty thought in the prompt without thinking, and before the last answer otherwise:
# https://github.com/huggingface/transformers/issues/37949
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# A header with the day and the mode, and an empty thought before answers and prompts without thinking:
# https://github.com/huggingface/blog (smollm3.md), https://github.com/21-grams/notso-smollm3-bot
SMOLLM3 = (
    "{% set think = enable_thinking | default(true) %}<|im_start|>system\n## Metadata\n\n"
    "Today Date: {{ strftime_now('%d %B %Y') }}\nReasoning Mode: {{ '/think' if think else '/no_think' }}\n\n"
    "## Custom Instructions\n\n{{ messages[0].content if messages[0].role == 'system' else 'You help.' }}\n\n"
    "<|im_end|>\n{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not think %}<think>\n\n</think>\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not think %}<think>\n\n</think>\n{% endif %}{% endif %}"
)
# The system turn is always there, with the day: https://githubissues.com/ShishirPatil/gorilla/752
LLAMA32 = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set turns = messages[1:] %}"
    "{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
    "{% for m in turns %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# System text goes before the first question, and content may be parts:
# https://ai.google.dev/gemma/docs/capabilities/text/chat
GEMMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first }}{% if m.content is string %}{{ m.content | trim }}{% else %}"
    "{% for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# No line breaks around roles: https://huggingface.co/microsoft/Phi-4-mini-instruct
PHI4 = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
)
# The third version of its tokenizer, and system text before the last question:
# https://docs.mistral.ai/cookbook/concept-deep-dive-tokenization-templates
MISTRAL3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m.role == 'user' %}{% if loop.last and tools is not none and tools is defined %}"
    "[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {{ system if loop.index0 + 1 >= turns | length - (turns[-1].role == 'assistant') | int }}{{ m.content }}"
    "[/INST]{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
_LLAMA32_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip
_LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [2.0] * 6,
    "original_max_position_embeddings": 512,
}  # fmt: skip


def _qwen_like(template: str) -> Callable[[], Any]:
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    return lambda: build_tokenizer(tokens, template, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _gemma() -> Any:
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    return build_tokenizer(["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], GEMMA3, **names)


def _phi4() -> Any:
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return build_tokenizer(["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], PHI4, **names)


def _mistral() -> Any:
    tokens = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"]
    return build_tokenizer(tokens, MISTRAL3, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@dataclass(frozen=True)
class Twin:
    """The model of a recipe in small; `because` is why its layers are not fused, empty where they are."""

    config_class: str
    tokenizer: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    because: str = ""

    def save(self, folder: Path) -> Path:
        """Tokenizer and random float32 weights."""
        import torch
        import transformers

        tokenizer = self.tokenizer()
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        config = getattr(transformers, self.config_class)(vocab_size=len(tokenizer), **special, **SMALL | self.options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(config)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        return folder


_QWEN_NORMS = "Qwen 3 norms query and key"
TWINS = {
    "qwen3-0.6b": Twin("Qwen3Config", _qwen_like(QWEN3), {"tie_word_embeddings": True}, _QWEN_NORMS),
    "qwen3-4b": Twin("Qwen3Config", _qwen_like(QWEN3), {"tie_word_embeddings": True, "head_dim": 32}, _QWEN_NORMS),
    "qwen3-8b": Twin("Qwen3Config", _qwen_like(QWEN3), {"tie_word_embeddings": False}, _QWEN_NORMS),
    "smollm3-3b": Twin(
        "SmolLM3Config",
        _qwen_like(SMOLLM3),
        {"no_rope_layers": [1, 0, 1], "tie_word_embeddings": True, "attention_bias": False},
    ),
    "llama3.2-1b": Twin("LlamaConfig", lambda: build_tokenizer(chat_template=LLAMA32),
                        {"rope_parameters": _LLAMA32_ROPE, "tie_word_embeddings": True}),
    "llama3.2-3b": Twin("LlamaConfig", lambda: build_tokenizer(chat_template=LLAMA32),
                        {"rope_parameters": _LLAMA32_ROPE, "tie_word_embeddings": True, "num_attention_heads": 8}),
    "gemma3-1b": Twin(
        "Gemma3TextConfig", _gemma,
        {"sliding_window": 12, "num_key_value_heads": 1, "query_pre_attn_scalar": 16, "tie_word_embeddings": True,
         "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]},
        "Gemma 3 has four norms a layer and norms query and key",
    ),
    "phi4-mini": Twin(
        "Phi3Config", _phi4,
        {"rope_parameters": _LONGROPE, "original_max_position_embeddings": 512, "tie_word_embeddings": True,
         "sliding_window": 262144, "max_position_embeddings": 4096},
        "Phi joins its projections",
    ),
    "mistral-7b": Twin("MistralConfig", _mistral, {"sliding_window": None, "tie_word_embeddings": False}),
}  # fmt: skip
