"""Write a random-weight model of LLaMA-3-70B's shape to OUT, in NF4 alone and layer by layer.

    shape_70b.py OUT --tokenizer DIR [name=value …]

In 16 bit it would take 141 GB. Packed, with embeddings and head in bfloat16, it takes 39 GB of disk; one weight at a
time is on the GPU, and a file's worth in host memory. DIR and name=value are those of `shape_8b.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reporting import GIB, print_measurement
from shape_8b import FIXED, UNUSED_SCALE, packed_tensors, read_arguments, stored_bytes, write_packed

SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}


def main() -> None:
    """Write the folder."""
    write_packed_model(*read_arguments(__doc__, SHAPE))


def write_packed_model(out: Path, tokenizer_folder: Path, sizes: dict[str, int]) -> None:
    """The model of these `sizes`, with its tokenizer, in OUT."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig

    began = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, model_max_length=sizes["max_position_embeddings"])
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = LlamaConfig(**sizes, **FIXED, **ids, dtype=torch.bfloat16)
    config.architectures = ["LlamaForCausalLM"]
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write_packed(_tensors(config, len(tokenizer), device), config, GenerationConfig(**ids), out)
    tokenizer.save_pretrained(out)
    seconds = round(time.monotonic() - began, 1)
    stored = round(stored_bytes(out) / GIB, 2)
    print_measurement(benchmark="shape_70b", stored_gib=stored, seconds=seconds, sizes=sizes)


def _tensors(config: Any, known_tokens: int, device: str) -> Iterator[tuple[str, Any]]:
    """Names and tensors of the checkpoint, each made when it is asked for."""
    import torch

    def random(rows: int, columns: int) -> Any:
        drawn = torch.randn((rows, columns), dtype=torch.bfloat16, device=device)
        return drawn * config.initializer_range

    width, inner = config.hidden_size, config.intermediate_size
    head = width // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    projections = {
        "self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }  # fmt: skip
    ones = torch.ones(width, dtype=torch.bfloat16)
    yield "model.embed_tokens.weight", random(config.vocab_size, width).cpu()
    for layer in range(config.num_hidden_layers):
        for name, (rows, columns) in projections.items():
            yield from packed_tensors(f"model.layers.{layer}.{name}", random(rows, columns))
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", ones.clone()
    yield "model.norm.weight", ones.clone()
    scores = random(config.vocab_size, width)
    scores[known_tokens:] *= UNUSED_SCALE
    yield "lm_head.weight", scores.cpu()


if __name__ == "__main__":
    main()
