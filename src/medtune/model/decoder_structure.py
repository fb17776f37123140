"""Which decoder layers a model has, and whether they have the structure that `fused.layers` computes."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from medtune.model.fused.projections import is_lora, is_plain_lora

# RMSNorm, rotary attention, RMSNorm, SwiGLU, two sums, and nothing else.
LAYER_CLASSES = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "SmolLM3DecoderLayer")
# Why decoder layers of other families keep their own code.
_OTHERWISE = {
    "Qwen3DecoderLayer": "Qwen 3 norms query and key",
    "GemmaDecoderLayer": "Gemma's norms and activation are others",
    "Gemma2DecoderLayer": "Gemma 2 has four norms a layer and caps its scores",
    "Gemma3DecoderLayer": "Gemma 3 has four norms a layer and norms query and key",
    "Phi3DecoderLayer": "Phi joins its projections",
}


def can_fuse_layers(model: nn.Module) -> bool:
    """Whether every decoder layer is of the structure that is known here, with plain adapters or none."""
    layers = decoder_layers(model)
    # The last norm is fused with them.
    norms = [module for name, module in model.named_modules() if name.endswith("model.norm")]
    return bool(layers) and all(map(_can_fuse, layers)) and not any(map(is_saved_whole, norms))


def decoder_layers(model: nn.Module) -> list[Any]:
    """The decoder layers of `model`, whatever wraps it."""
    lists = [module for name, module in model.named_modules() if name.rsplit(".", 1)[-1] == "layers"]
    return list(lists[0]) if lists and isinstance(lists[0], nn.ModuleList) else []


def is_saved_whole(module: nn.Module) -> bool:
    """Whether an adapter brings a whole copy of this module, as PEFT's `modules_to_save` has it."""
    from peft.utils import AuxiliaryTrainingWrapper

    return isinstance(module, AuxiliaryTrainingWrapper)


def _can_fuse(layer: Any) -> bool:
    if type(layer).__name__ not in LAYER_CLASSES:
        return False
    plain = all(_alike(group) for group in projection_groups(layer)) and not any(map(is_saved_whole, layer.modules()))
    half = layer.self_attn.head_dim // 2
    return plain and type(layer.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation") and half & (half - 1) == 0


def projection_groups(layer: Any) -> tuple[list[Any], ...]:
    """The linear layers of a decoder layer of this structure, those that read one input together, in their order."""
    attention, mlp = layer.self_attn, layer.mlp
    return (
        [attention.q_proj, attention.k_proj, attention.v_proj],
        [attention.o_proj],
        [mlp.gate_proj, mlp.up_proj],
        [mlp.down_proj],
    )


def _alike(group: Sequence[nn.Module]) -> bool:
    """Whether all layers of a group have a plain adapter, or none has any."""
    return all(map(is_plain_lora, group)) or not any(map(is_lora, group))


def reason_not_to_fuse(model: nn.Module) -> str:
    """Why `can_fuse_layers` says no."""
    names = sorted({type(layer).__name__ for layer in decoder_layers(model)})
    if unknown := [name for name in names if name not in LAYER_CLASSES]:
        return _OTHERWISE.get(unknown[0], f"{unknown[0]} is not of LLaMA's structure")
    return "its adapters or its activation are not plain" if names else "it has no list of decoder layers"


def rotates(attention: Any) -> bool:
    """Whether an attention layer turns query and key by their places; every fourth of SmolLM3's does not."""
    return bool(getattr(attention, "use_rope", True))


def sliding_window(attention: Any) -> int | None:
    """How many tokens back an attention layer sees, its own included; None for all."""
    own = getattr(attention, "sliding_window", None)
    if type(attention).__name__.startswith("Mistral"):
        own = getattr(attention.config, "sliding_window", None)
    return None if own is None else int(own)
