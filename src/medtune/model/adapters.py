"""LoRA adapters through PEFT: new ones, existing ones, and where they are found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from medtune.config import LoraSection
from medtune.errors import ModelError
from medtune.hub import fetch_adapter


def resolve_adapter(adapter: str) -> Path:
    """The folder of an adapter given as a folder or a Hub id. Raises ModelError if it is none."""
    path = Path(adapter)
    if not os.path.isdir(path):  # unlike Path.is_dir, no error for a name that is too long
        if os.path.exists(path) or adapter.startswith((".", "/", "~")) or adapter.count("/") != 1:
            raise ModelError(f"{adapter}: no such adapter folder; give an existing folder or a Hub id")
        path = fetch_adapter(adapter)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (path / name).is_file():
            raise ModelError(f"{adapter}: no {name} in it; a LoRA adapter in PEFT's safetensors format is needed")
    return path


def adapter_base(path: Path) -> str:
    """The base model that an adapter names. Raises ModelError if it names none."""
    try:
        base = json.loads((path / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        raise ModelError(f"{path}: its adapter_config.json is damaged; fetch or save the adapter again") from None
    if not base:
        raise ModelError(f"{path}: its adapter_config.json names no base model; give the run directory instead")
    return str(base)


def attach_new_adapter(model: Any, lora: LoraSection, seed: int) -> Any:
    """Wrap `model` with a fresh float32 adapter, whose first weights depend on `seed` alone. Raises ModelError."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import set_seed

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
    set_seed(seed)
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"lora.targets: {str(error).splitlines()[0]}") from None
    return lift_adapter(wrapped)


def attach_adapter(model: Any, path: Path, *, trainable: bool) -> Any:
    """Wrap `model` with the adapter stored in `path`. Raises ModelError if it does not fit the model."""
    from peft import PeftModel

    try:
        wrapped = PeftModel.from_pretrained(model, path, is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: this adapter does not fit the base model ({first})") from None
    return lift_adapter(wrapped) if trainable else wrapped.eval()


def lift_adapter(model: Any) -> Any:
    """Make every trainable parameter float32: in 16 bit, small updates are lost and the gradient scaler fails."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model
