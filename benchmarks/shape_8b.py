"""Write a random-weight model of LLaMA-3-8B's shape: OUT/bf16 in bfloat16, OUT/nf4 in NF4, double quantised.

    shape_8b.py OUT --tokenizer DIR [name=value …]

Speed and memory depend on a model's shape, not on what it has learned. DIR is a folder with a tokenizer and a chat
template; the model's vocabulary is padded to LLaMA-3's 128,256. name=value sets another size of the configuration
(max_position_embeddings=40960; num_hidden_layers=2 to try it out). Takes 22 GB of disk and 16 GB of GPU memory.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reporting import GIB, note, print_measurement

SHAPE = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
FIXED: dict[str, Any] = {
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
}
SHARD_BYTES = 4 * 10**9
# Scores of tokens that the tokenizer cannot spell: random like the others, and too small to be anybody's best.
UNUSED_SCALE = 0.1


def main() -> None:
    """Write both folders."""
    write_model(*read_arguments(__doc__, SHAPE))


def read_arguments(description: str | None, shape: Mapping[str, int]) -> tuple[Path, Path, dict[str, int]]:
    """OUT, the tokenizer's folder, and the sizes of `shape` with those that the command line sets."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("sizes", nargs="*", metavar="name=value", help=f"of {', '.join(shape)}")
    arguments = parser.parse_intermixed_args()
    sizes = dict(shape)
    for size in arguments.sizes:
        name, _, number = size.partition("=")
        if name not in shape:
            parser.error(f"{size}: not a name=value of {', '.join(shape)}")
        sizes[name] = int(number)
    return arguments.out, arguments.tokenizer, sizes


def write_model(out: Path, tokenizer_folder: Path, sizes: dict[str, int]) -> None:
    """The model of these `sizes` in OUT/bf16 and OUT/nf4."""
    import torch
    from transformers import AutoTokenizer

    began = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, model_max_length=sizes["max_position_embeddings"])
    model = random_model(tokenizer, sizes, "cuda" if torch.cuda.is_available() else "cpu")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    note(f"{parameters / 1e9:.2f} billion random weights in {time.monotonic() - began:.1f} s")
    model.save_pretrained(out / "bf16", max_shard_size=SHARD_BYTES)
    tokenizer.save_pretrained(out / "bf16")
    written = time.monotonic()
    note(f"bfloat16 written after {written - began:.1f} s")
    write_nf4(model, out / "nf4")
    tokenizer.save_pretrained(out / "nf4")
    stored = {name: round(stored_bytes(out / name) / GIB, 2) for name in ("bf16", "nf4")}
    seconds = round(time.monotonic() - began, 1)
    print_measurement(benchmark="shape_8b", parameters=parameters, stored_gib=stored, seconds=seconds, sizes=sizes)


def random_model(tokenizer: Any, sizes: dict[str, int], device: str) -> Any:
    """Made where it lives: on a GPU eight billion random numbers take a second."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if len(tokenizer) > sizes["vocab_size"]:
        raise SystemExit(f"the tokenizer has {len(tokenizer)} tokens, and vocab_size is {sizes['vocab_size']}")
    config = LlamaConfig(**sizes, **FIXED, **ids, dtype=torch.bfloat16)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        model.lm_head.weight[len(tokenizer) :] *= UNUSED_SCALE
    for name, token_id in ids.items():
        setattr(model.generation_config, name, token_id)
    return model.requires_grad_(False)


def write_nf4(model: Any, folder: Path) -> None:
    """Quantise `model` layer by layer, where it is, and write it as transformers does."""
    write_packed(_quantized_tensors(model), model.config, model.generation_config, folder)


def write_packed(tensors: Iterator[tuple[str, Any]], config: Any, generation_config: Any, folder: Path) -> None:
    """Write the tensors of a checkpoint in NF4 as they come, a file's worth at a time, with their configuration."""
    import torch
    from safetensors.torch import save_file
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(_shards(tensors), start=1):
        file = f"model-{number:05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        names |= dict.fromkeys(shard, file)
        total += sum(tensor.nbytes for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    config.quantization_config = quantization.to_dict()
    config.save_pretrained(folder)
    generation_config.save_pretrained(folder)
    del config.quantization_config


def with_positions(model: Path, positions: int, folder: Path) -> Path:
    """`model` in another folder, by links, with a configuration that allows `positions` tokens."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}, indent=2))
    return folder


def _quantized_tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """Names and tensors of the checkpoint: projections in 4 bit, embeddings, norms and head as they are."""
    from torch import nn

    projections = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings()
    }
    for name, parameter in model.named_parameters():
        owner = name.removesuffix(".weight")
        if owner not in projections:
            yield name, parameter.data.cpu()
            continue
        # A copy: on a CPU the packed weight would take the place of the model's own.
        yield from packed_tensors(owner, parameter.data.clone())


def packed_tensors(owner: str, weight: Any) -> Iterator[tuple[str, Any]]:
    """Names and tensors, on the CPU, of the layer called `owner` with this `weight`, (out, in), in 4 bit."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    packed = Linear4bit(weight.shape[1], weight.shape[0], bias=False, quant_type="nf4", device="meta")
    held = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
    packed.weight = held.to(weight.device)
    for key, tensor in packed.state_dict(prefix=f"{owner}.").items():
        yield key, tensor.cpu()


def _shards(tensors: Iterator[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    shard: dict[str, Any] = {}
    held = 0
    for name, tensor in tensors:
        if shard and held + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard, held = {}, 0
        shard[name] = tensor.contiguous()
        held += tensor.nbytes
    yield shard


def stored_bytes(folder: Path) -> int:
    """What the weights in `folder` take."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


if __name__ == "__main__":
    main()
