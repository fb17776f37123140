"""A model prepared to score and answer: its decoder layers fused, its weights dequantised once where memory allows."""

from typing import Any

import torch

from medtune.errors import ModelError
from medtune.model.base_weights import BaseWeights
from medtune.model.decoder_structure import can_fuse_layers
from medtune.model.fused.layers import fuse_layers
from medtune.model.quantization import DEQUANTIZED, dequantized_bytes, format_of, packed_layers
from medtune.model.sharding import ShardedWeights
from medtune.runtime.hardware import Choice, free_bytes, input_device, torch_dtype
from medtune.runtime.launch import world_size
from medtune.runtime.progress import say

# The most of the free memory that dequantised weights take: the key-value cache needs the rest.
DEQUANTIZED_SHARE = 0.4


def prepare_inference(
    model: Any, dtype: str, kept: Choice | None = None, *, shards: ShardedWeights | None = None
) -> Choice:
    """Keep packed weights dequantised where they take a part of the free memory, and fuse decoder layers.

    Says what was chosen. The numbers stay the same. `kept` is the choice of the work that is resumed;
    raises ModelError if memory does not suffice for it, or its weights are now `shards`, which stay packed.
    """
    device, wanted = input_device(model), torch_dtype(dtype)
    choice = kept or _choose_weights(model, wanted, str(device), shards)
    if kept is not None and kept.value == DEQUANTIZED and shards is not None:
        raise ModelError(
            "shared weights stay packed, and these answers were begun with dequantised ones",
            fix="set training.weights to nf4, or delete partial.jsonl in the run directory to start over",
        )
    if kept is not None and kept.value == DEQUANTIZED:
        size, free = dequantized_bytes(model, wanted), free_bytes(str(device))
        if size > free:
            raise ModelError(
                f"{size / 2**30:.1f} GiB of dequantised weights, with which these answers were begun, do not fit in "
                f"{free / 2**30:.1f} GiB",
                fix="free memory on the device, or delete partial.jsonl in the run directory to start over",
            )
    keep = wanted if choice.value == DEQUANTIZED else None
    say(f"base weights: {choice.value} ({choice.reason})")
    spread = len(set(getattr(model, "hf_device_map", {"": 0}).values())) > 1
    if not spread and can_fuse_layers(model):
        fuse_layers(model, keep_dequantized=keep, shards=shards)
    elif keep is not None:
        for layer in packed_layers(model):
            BaseWeights([layer], keep=keep)
    return choice


def _choose_weights(model: Any, dtype: torch.dtype, device: str, shards: ShardedWeights | None) -> Choice:
    if not (packed := packed_layers(model)):
        return Choice("as they are", "no weight is packed")
    if shards is not None:
        return Choice(format_of(packed[0]).name, f"shared out over {world_size()} processes")
    size = dequantized_bytes(model, dtype)
    free = free_bytes(device)
    fits = size <= free * DEQUANTIZED_SHARE
    reason = f"{size / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free, the limit being {DEQUANTIZED_SHARE:.0%}"
    return Choice(DEQUANTIZED if fits else format_of(packed[0]).name, reason)
