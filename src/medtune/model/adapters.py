"""LoRA adapters through PEFT: new ones, existing ones, and where they are found."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from medtune.config import DEFAULT_SYSTEM_PROMPT, Config, LoraSection
from medtune.errors import ModelError, first_line
from medtune.hub import ADAPTER_SETTINGS, fetch_adapter


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


def adapter_fingerprint(path: Path) -> str:
    """A checksum of an adapter's configuration and weights."""
    checksum = hashlib.sha256()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        with (path / name).open("rb") as file:
            checksum.update(hashlib.file_digest(file, "sha256").digest())
    return checksum.hexdigest()


def adapter_settings(config: Config) -> dict[str, Any]:
    """What an adapter was trained with and needs for its answers, kept beside its weights."""
    return {
        "system_prompt": config.data.system_prompt,
        "quantization": config.model.quantization,
        "max_new_tokens": config.generation.max_new_tokens,
    }


def adapter_config(path: Path) -> Config:
    """The configuration for answers with a bare adapter: its base, and its settings where medtune wrote them.

    Raises ModelError if the adapter names no base model or its settings are damaged.
    """
    stored = _read_adapter_config(path)
    file = path / ADAPTER_SETTINGS
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        quantization = settings.get("quantization", "nf4")
        model = {"base": adapter_base(path), "revision": stored.get("revision"), "quantization": quantization}
        data = {"source": "none", "system_prompt": settings.get("system_prompt", DEFAULT_SYSTEM_PROMPT)}
        generation = {"max_new_tokens": settings.get("max_new_tokens", 512)}
        return Config.model_validate({"model": model, "data": data, "generation": generation})
    except (ValueError, AttributeError):
        raise ModelError(f"{file}: damaged; delete it to use the default settings") from None


def adapter_base(path: Path) -> str:
    """The base model that an adapter names. Raises ModelError if it names none."""
    base = _read_adapter_config(path).get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{path}: its adapter_config.json names no base model; give the run directory instead")
    return str(base)


def _read_adapter_config(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise ModelError(f"{path}: its adapter_config.json is damaged; fetch or save the adapter again")
    return stored


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
        raise ModelError(f"{path}: this adapter does not fit the base model ({first_line(error)})") from None
    return lift_adapter(wrapped) if trainable else wrapped.eval()


def lift_adapter(model: Any) -> Any:
    """Make every trainable parameter float32: in 16 bit, small updates are lost and the gradient scaler fails."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model
