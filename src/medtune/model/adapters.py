"""LoRA adapters through PEFT: new ones, existing ones, and where they are found."""

import hashlib
import os
import warnings
from pathlib import Path
from textwrap import shorten
from typing import Any

from medtune.config.schema import DEFAULT_SYSTEM_PROMPT, Config
from medtune.config.training import LoraSection
from medtune.errors import ModelError
from medtune.model.adapter_files import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    read_adapter_config,
    require_fitting_weights,
    require_own_files,
    weight_shapes,
)
from medtune.model.chat_templates import TEMPLATE_NAME
from medtune.model.quantization import NF4, PLAIN
from medtune.storage.hub import ADAPTER_SETTINGS, fetch_adapter
from medtune.storage.reading import DamagedError, describe_file, read_mapping


def resolve_adapter(adapter: str) -> Path:
    """The folder of an adapter given as a folder or a Hub id. Raises ModelError if it is none."""
    path = Path(adapter)
    if not os.path.isdir(path):  # unlike Path.is_dir, no error for a name that is too long
        if os.path.exists(path) or adapter.startswith((".", "/", "~")) or adapter.count("/") != 1:
            raise ModelError(adapter, "no such adapter folder", "give an existing folder or a Hub id")
        path = fetch_adapter(adapter)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (path / name).is_file():
            raise ModelError(adapter, f"no {name} in it", "a LoRA adapter in PEFT's safetensors format is needed")
    require_own_files(path)
    read_adapter_config(path)
    weight_shapes(path)
    return path


def adapter_fingerprint(path: Path) -> str:
    """A checksum of an adapter's configuration and weights."""
    checksum = hashlib.sha256()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        checksum.update(bytes.fromhex(describe_file(path / name)["sha256"]))
    return checksum.hexdigest()


def adapter_settings(config: Config) -> dict[str, Any]:
    """What an adapter was trained with and needs for its answers, kept beside its weights."""
    today = config.data.prompt_date
    return {
        **({"prompt_date": today.isoformat()} if today else {}),
        # Kept only where they are not the defaults: files of older versions have no such lines.
        **({"chat_template": TEMPLATE_NAME} if config.model.chat_template or config.model.adapter else {}),
        **({"template_settings": settings} if (settings := config.model.template_settings) else {}),
        "system_prompt": config.data.system_prompt,
        "quantization": config.model.quantization,
        "max_new_tokens": config.generation.max_new_tokens,
    }


def adapter_config(path: Path) -> Config:
    """The configuration for answers with a bare adapter: its base, and its settings where medtune wrote them.

    Raises ModelError if the adapter names no base model or its settings are damaged.
    """
    return _with_settings(path, {"base": adapter_base(path), "revision": read_adapter_config(path)["revision"]})


def merged_config(path: Path) -> Config:
    """The configuration for answers with a merged model. Raises ModelError if its settings are damaged."""
    return _with_settings(path, {"base": str(path), "quantization": PLAIN.name})


def _with_settings(path: Path, model: dict[str, Any]) -> Config:
    file = path / ADAPTER_SETTINGS
    try:
        settings = read_mapping(file) if file.is_file() else {}
        names = {"quantization": NF4.name, "template_settings": {}}
        # The tokenizer was saved beside the weights, with the template that it wrote with.
        own = {"chat_template": str(path / TEMPLATE_NAME)} if settings.get("chat_template") == TEMPLATE_NAME else {}
        model = {**own, **{name: settings.get(name, default) for name, default in names.items()}, **model}
        prompts = {"system_prompt": DEFAULT_SYSTEM_PROMPT, "prompt_date": None}
        data = {"source": "none", **{name: settings.get(name, default) for name, default in prompts.items()}}
        generation = {"max_new_tokens": settings.get("max_new_tokens", 512)}
        return Config.model_validate({"model": model, "data": data, "generation": generation})
    except (ValueError, DamagedError):
        raise ModelError(file, "damaged", "delete it to use the default settings") from None


def adapter_base(path: Path) -> str:
    """The base model that an adapter names. Raises ModelError if it names none."""
    base = read_adapter_config(path)["base_model_name_or_path"]
    if not base:
        raise ModelError(path, "its adapter_config.json names no base model", "give the run directory instead")
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
        raise ModelError("lora.targets", str(error).splitlines()[0]) from None
    return lift_adapter(wrapped)


def attach_adapter(model: Any, path: Path, *, trainable: bool) -> Any:
    """Wrap `model` with the adapter stored in `path`. Raises ModelError if it does not fit the model."""
    from peft import LoraConfig, PeftModel

    # PEFT sees those of the file's settings that were checked, and no others.
    config = LoraConfig(**read_adapter_config(path), inference_mode=not trainable)
    try:
        # What has another shape is warned of there, and refused below in one line.
        with warnings.catch_warnings(action="ignore"):
            wrapped = PeftModel.from_pretrained(
                model, path, config=config, is_trainable=trainable, ignore_mismatched_sizes=True
            )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        problem = f"this adapter does not fit the base model ({shorten(reason, 300, placeholder=' …')})"
        raise ModelError(path, problem) from None
    require_fitting_weights(wrapped, path)
    return lift_adapter(wrapped) if trainable else wrapped.eval()


def lift_adapter(model: Any) -> Any:
    """Make every trainable parameter float32: in 16 bit, small updates are lost and the gradient scaler fails."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model
