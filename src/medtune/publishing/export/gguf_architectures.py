"""The architectures of llama.cpp that a model can be written for, and what their files say of its shape.

Each is described as llama.cpp's own converter does it (https://github.com/ggml-org/llama.cpp, conversion/).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medtune.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

_OTHER_FIX = "llama.cpp's convert_hf_to_gguf.py may know it; give that the merged folder"


@dataclass(frozen=True, slots=True)
class Architecture:
    """`name` is llama.cpp's. `permutes` has it rotate neighbouring numbers of queries and keys, not halves.

    `shifts_norms` has norms multiply by their weight and not by 1 more. `tied` is that it never reads a head.
    `describe` writes what this family has beside the common fields.
    """

    name: str
    permutes: bool = False
    shifts_norms: bool = False
    tied: bool = False
    describe: Callable[["GGUFWriter", Any], None] = lambda writer, config: None


def architecture_of(config: Any) -> Architecture:
    """The architecture for a transformers configuration of a text model. Raises ModelError if none fits."""
    kind = str(config.model_type)
    if (found := _KNOWN.get(kind)) is None:
        raise ModelError(kind, f"only {', '.join(_KNOWN)} are written as GGUF", _OTHER_FIX)
    for unfit, reason in _UNFIT.get(kind, ()):
        if unfit(config):
            raise ModelError(kind, reason, _OTHER_FIX)
    rope = rope_of(config)
    if rope["rope_type"] not in ("default", "linear", "llama3", "yarn", "longrope"):
        raise ModelError(kind, f"llama.cpp does not scale positions by {rope['rope_type']}", _OTHER_FIX)
    return found


def rope_of(config: Any) -> dict[str, Any]:
    """How positions are rotated: `rope_type`, `rope_theta` and what scales them, of all layers or the full ones."""
    parameters: dict[str, Any] = dict(config.rope_parameters)
    return dict(parameters.get("full_attention", parameters))


def head_size(config: Any) -> int:
    """Numbers of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def describe_model(writer: "GGUFWriter", config: Any, architecture: Architecture) -> None:
    """Write the shape of a model to the header of its file."""
    rope = rope_of(config)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads or config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_rope_dimension_count(int(head_size(config) * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    _describe_scaling(writer, rope)
    architecture.describe(writer, config)


def rope_tensors(config: Any) -> dict[str, list[float]]:
    """Factors of the rotary frequencies that a file holds as tensors, by their names."""
    rope = rope_of(config)
    if rope["rope_type"] == "longrope":
        return {"rope_factors_long.weight": rope["long_factor"], "rope_factors_short.weight": rope["short_factor"]}
    if rope["rope_type"] != "llama3":
        return {}
    size, original = head_size(config), rope["original_max_position_embeddings"]
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    factors = []
    for place in range(0, size, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (place / size)
        share = (original / wavelength - low) / (high - low)  # of the frequency as it was; the rest is slowed down
        share = min(1.0, max(0.0, share))
        factors.append(1 / ((1 - share) / factor + share))
    return {"rope_freqs.weight": factors}


def _describe_scaling(writer: "GGUFWriter", rope: dict[str, Any]) -> None:
    from gguf import RopeScalingType

    kind = rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "longrope":
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    elif kind == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        for name, add in (
            ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rope.get(name) is not None:
                add(rope[name])


def _describe_gemma2(writer: "GGUFWriter", config: Any) -> None:
    if config.attn_logit_softcapping:
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    _describe_windows(writer, config)


def _describe_gemma3(writer: "GGUFWriter", config: Any) -> None:
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    _describe_windows(writer, config)


def _describe_windows(writer: "GGUFWriter", config: Any) -> None:
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])


def _describe_phi3(writer: "GGUFWriter", config: Any) -> None:
    original = config.original_max_position_embeddings
    writer.add_rope_scaling_orig_ctx_len(original)
    writer.add_sliding_window(config.sliding_window or 0)  # 0 tells Phi-4 from earlier ones
    if rope_of(config)["rope_type"] == "longrope":
        scale = config.max_position_embeddings / original
        factor = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
        writer.add_rope_scaling_attn_factors(factor)


def _other_scale(config: Any) -> bool:
    # llama.cpp knows one model by its number of layers, and computes the scale of all others from the head's size.
    layers_of_27b = 46 if config.model_type == "gemma2" else 62
    usual = config.num_hidden_layers != layers_of_27b
    wanted = head_size(config) if usual else config.hidden_size // config.num_attention_heads
    return bool(config.query_pre_attn_scalar != wanted)


_SCALE = (_other_scale, "llama.cpp takes the scale of attention from the size of a head, and this model has another")
_WINDOWS = (
    lambda config: bool(getattr(config, "use_sliding_window", False)),
    "llama.cpp has no sliding windows for this family",
)
_UNFIT: dict[str, tuple[tuple[Callable[[Any], bool], str], ...]] = {
    "gemma2": (_SCALE,), "gemma3_text": (_SCALE,), "qwen2": (_WINDOWS,), "qwen3": (_WINDOWS,),
}  # fmt: skip
_KNOWN = {
    "llama": Architecture("llama", permutes=True),
    "mistral": Architecture("llama", permutes=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma", shifts_norms=True, tied=True),
    "gemma2": Architecture("gemma2", shifts_norms=True, tied=True, describe=_describe_gemma2),
    "gemma3_text": Architecture("gemma3", shifts_norms=True, describe=_describe_gemma3),
    "phi3": Architecture("phi3", describe=_describe_phi3),
}


def window_note(config: Any) -> str | None:
    """What a reader has to know of windows that llama.cpp does not compute; None where there is nothing."""
    window = getattr(config, "sliding_window", None)
    if config.model_type not in ("mistral", "phi3") or not window or window >= config.max_position_embeddings:
        return None
    return f"llama.cpp has no sliding window for this family: answers may differ beyond {window:,} tokens"
