"""A model made ready to score and answer: weights dequantised once where memory allows, layers fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medtune.errors import ModelError
from medtune.model.base_weights import BaseWeights, dequantized_bytes, is_4bit
from medtune.model.decoder_structure import can_fuse_layers
from medtune.model.fused.layers import fuse_layers
from medtune.runtime.hardware import Choice, free_bytes, input_device, torch_dtype
from medtune.runtime.progress import say

# Of the free memory: the key-value cache wants the rest.
DEQUANTIZED_SHARE = 0.4
# Tokens of one scoring pass where memory allows; more are no faster.
SCORING_TOKENS = {"cpu": 2048, "cuda": 16384}


def prepare_inference(model: Any, dtype: str, kept: Choice | None = None) -> Choice:
    """Keep 4-bit weights dequantised where they take a part of the free memory, and fuse decoder layers.

    Says what was chosen. The numbers stay the same. `kept` is what was chosen when the work began that now goes on;
    raises ModelError if memory does not suffice for it.
    """
    device, wanted = input_device(model), torch_dtype(dtype)
    choice = kept or _choose_weights(model, wanted, str(device))
    if kept is not None and kept.value == "dequantized":
        _require_room(dequantized_bytes(model, wanted), free_bytes(str(device)))
    keep = wanted if choice.value == "dequantized" else None
    say(f"base weights: {choice.value} ({choice.reason})")
    spread = len(set(getattr(model, "hf_device_map", {"": 0}).values())) > 1
    if not spread and can_fuse_layers(model):
        fuse_layers(model, keep_dequantized=keep)
    elif keep is not None:
        for layer in [module for module in model.modules() if isinstance(module, nn.Linear) and is_4bit(module)]:
            BaseWeights([layer], keep=keep)
    return choice


def scoring_tokens(model: Any, wanted: int | str) -> int:
    """Token budget of a scoring pass: `wanted`, or for `auto` as many as fit and pay."""
    if not isinstance(wanted, str):
        return wanted
    device = input_device(model)
    text = model.config.get_text_config()
    width = model.get_input_embeddings().weight.element_size()
    # Residual stream and its copies, and the feed-forward part; unfused layers hold some of it in float32.
    a_token = width * (24 * text.hidden_size + 6 * getattr(text, "intermediate_size", 4 * text.hidden_size))
    return int(max(512, min(SCORING_TOKENS[device.type], free_bytes(str(device)) // 2 // a_token)))


def _require_room(size: int, free: int) -> None:
    if size > free:
        raise ModelError(
            f"{size / 2**30:.1f} GiB of dequantised weights, with which these answers were begun, do not fit in "
            f"{free / 2**30:.1f} GiB",
            fix="free memory on the device, or delete partial.jsonl in the run directory to begin anew",
        )


def _choose_weights(model: Any, dtype: torch.dtype, device: str) -> Choice:
    size = dequantized_bytes(model, dtype)
    if size == 0:
        return Choice("as they are", "no weight is in 4 bit")
    free = free_bytes(device)
    fits = size <= free * DEQUANTIZED_SHARE
    reason = f"{size / 2**30:.1f} GiB of {free / 2**30:.1f} GiB free, the limit being {DEQUANTIZED_SHARE:.0%}"
    return Choice("dequantized" if fits else "nf4", reason)
