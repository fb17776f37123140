"""Adapters that medtune does not read, and why: other methods, and starts that leave a base changed."""

from collections.abc import Mapping
from typing import Any

_MERGED = "merge it with PEFT's merge_and_unload on its base, and give that model in model.base"
_NO_PROMPT = "train or fetch a LoRA adapter"
_CONVERT = (
    "save it again with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=START), which makes a plain "
    "LoRA adapter of it"
)
_PROMPTS = "puts trained vectors before every prompt, which no merged model and no packed row can hold"
_UPDATE = "changes weights in another way than by a low-rank product"
_LATER = (
    "ADAMSS BEFT C3A CARTRIDGE DEFT DELORA FROD GRALORA HIRA LILY OSF PEANUT PSOFT SHADOW SHIRA SUPERTUNING TINYLORA "
    "WAVEFT"
)
# By PEFT's names for the methods.
_METHODS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT"),
        (_PROMPTS, _NO_PROMPT),
    ),
    "IA3": ("scales activations by trained vectors, and has no low-rank product", _MERGED),
    "VERA": ("shares random matrices among layers and trains vectors between them", _MERGED),
    "LOHA": ("multiplies two low-rank products element by element", _MERGED),
    "LOKR": ("is a Kronecker product", _MERGED),
    "ADALORA": ("scales each direction of its product by a singular value of its own", _MERGED),
    "XLORA": ("mixes several adapters again for every token, which no merged model can hold", _NO_PROMPT),
    "POLY": ("mixes several adapters by task, which no merged model can hold", _NO_PROMPT),
    **dict.fromkeys(("OFT", "BOFT", "HRA"), ("rotates weights, and adds no low-rank product", _MERGED)),
    "LN_TUNING": ("is trained norms alone", _MERGED),
    "TRAINABLE_TOKENS": ("is rows of the embeddings alone", _MERGED),
    **dict.fromkeys(
        ("VBLORA", "FOURIERFT", "RANDLORA", "MISS", "ROAD", "UNILORA", "PVERA", "GLORA"), (_UPDATE, _MERGED)
    ),
    # What PEFT 0.21 has beside these.
    **dict.fromkeys(_LATER.split(), ("is another method than LoRA", _MERGED)),
}
_TASKS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM")
# Starts whose adapter belongs to a base with other weights.
_CHANGED_BASE = ("pissa", "corda", "olora", "lora_ga", "loftq")


def why_unsupported(stored: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why an adapter of this configuration cannot be used, and what to do; None if nothing is known against it."""
    kind, task, start = (stored.get(name) for name in ("peft_type", "task_type", "init_lora_weights"))
    if isinstance(kind, str) and kind in _METHODS:
        reason, fix = _METHODS[kind]
        return f"{kind}, which {reason}; medtune reads LoRA, rsLoRA and DoRA", fix
    if isinstance(task, str) and task in _TASKS:
        return f"an adapter for {task}, whose model writes no answers", "give one for CAUSAL_LM"
    if isinstance(start, str) and start.startswith(_CHANGED_BASE):
        name = next(known for known in _CHANGED_BASE if start.startswith(known))
        fix = _CONVERT if name != "loftq" else "give in model.base the model that LoftQ saved with it"
        return f"started by {name}, which changed its base's weights: it does not fit the untouched base", fix
    return None


def how_to_convert(name: str = "adapter_model") -> str:
    """What its owner can run to turn pickled weights into a safetensors file."""
    code = (
        f"import torch; from safetensors.torch import save_file; "
        f"w = torch.load('{name}.bin', map_location='cpu', weights_only=True); "
        f"save_file({{k: v.contiguous() for k, v in w.items()}}, '{name}.safetensors')"
    )
    return f'convert it in its folder: python -c "{code}"'
