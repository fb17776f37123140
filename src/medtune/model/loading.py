"""Base models: where they come from, and loading them in a storage format on the hardware that is there."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.config.schema import ModelSection
from medtune.errors import ModelError, first_line
from medtune.model.quantization import FORMATS
from medtune.model.stored_weights import loading_options
from medtune.storage.hub import TOKENIZER_FILES, WEIGHT_FILES, fetch_snapshot

DEMO_MODEL = "medtune:demo"
# What prompts, answers and their ends depend on; a vocabulary in other files where there is no tokenizer.json.
_IDENTIFYING = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", *WEIGHT_FILES,
)  # fmt: skip
# How many samples of each file tell it from another, and how long they are.
_SAMPLES, _SAMPLE_BYTES = 16, 64 * 2**10


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's folder on this disk, and the commit it was fetched at."""

    path: Path
    revision: str | None


def base_identity(base: str, files: ModelFiles) -> str:
    """What tells a base model from another: its commit on the Hub, or for a folder a checksum of samples of its files.

    Whole files of many GB would take minutes to read; weights that were trained differ wherever one looks.
    """
    if files.revision is not None:
        return f"{base} at {files.revision}"
    if base == DEMO_MODEL:
        return base
    checksum = hashlib.sha256()
    patterns = _IDENTIFYING if (files.path / "tokenizer.json").is_file() else (*_IDENTIFYING, *TOKENIZER_FILES)
    for file in sorted({file for pattern in patterns for file in files.path.glob(pattern) if file.is_file()}):
        size = file.stat().st_size
        checksum.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            for place in range(_SAMPLES):
                content.seek(size * place // _SAMPLES)
                checksum.update(content.read(_SAMPLE_BYTES))
    return f"{base} with files {checksum.hexdigest()[:16]}"


def resolve_base(base: str, revision: str | None = None, *, weights: bool = True) -> ModelFiles:
    """Find, build or download the base model.

    Without `weights` a Hub model's configuration alone is fetched, and a folder need not hold more. Raises ModelError
    if it cannot be had, or holds no safetensors weights.
    """
    if base == DEMO_MODEL:
        from medtune.model.demo_model import build_demo_model

        return ModelFiles(build_demo_model(), None)
    path = Path(base)
    if os.path.isdir(path):  # unlike Path.is_dir, no error for a name that is too long
        if not (path / "config.json").is_file():
            raise ModelError(base, "a folder without config.json", "give a model's folder or Hub id in model.base")
        if weights:
            require_weights(path)
        return ModelFiles(path, None)
    if os.path.exists(path) or base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise ModelError(base, "no such model folder", "give an existing folder or a Hub id in model.base")
    folder = fetch_snapshot(base, revision, weights=weights)
    return ModelFiles(folder, folder.name)


def require_weights(path: Path) -> None:
    """Raises ModelError if the folder `path` holds no safetensors weights."""
    if not any(path.glob("*.safetensors")):
        raise ModelError(path, "no .safetensors weights in it", "pickled weights are never loaded, convert them")


def model_without_weights(path: Path, dtype: str, name: str) -> Any:
    """The model that config.json in `path` describes, on torch's `meta` device: shapes and no memory.

    `name` is what messages call it. Raises ModelError if it is no causal language model.
    """
    from transformers import AutoConfig

    try:
        shape = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(path, f"its config.json cannot be used ({first_line(error)})") from None
    return model_of_shape(shape, dtype, name)


def model_of_shape(shape: Any, dtype: str, name: str) -> Any:
    """The model that a configuration of transformers describes, on the `meta` device.

    Raises ModelError if it is no causal language model, or one with other parts.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from medtune.runtime.hardware import torch_dtype

    if shape.get_text_config() is not shape:
        problem = f"a model of text and more ({shape.model_type}), and adapters would go into the other parts too"
        raise ModelError(name, problem, "give a model of text alone, such as google/gemma-3-1b-it")
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(shape, dtype=torch_dtype(dtype), trust_remote_code=False)
    except (ValueError, KeyError, RuntimeError) as error:
        raise ModelError(name, f"no causal language model ({first_line(error)})") from None


def load_base_model(files: ModelFiles, section: ModelSection, *, device: str, dtype: str, split: bool = False) -> Any:
    """The base model, frozen and in evaluation mode.

    It sits on `device`, or with `split` wherever `section.device_map` and `max_memory` put it. Raises ModelError.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from medtune.model.attention import register_packed_attention
    from medtune.runtime.hardware import torch_dtype

    options: dict[str, Any] = {"device_map": {"": device}, **loading_options(files.path, section, dtype)}
    if split and section.device_map is not None:
        options |= {"device_map": section.device_map, "max_memory": _max_memory(section.max_memory)}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            files.path,
            dtype=torch_dtype(dtype),
            attn_implementation=register_packed_attention(),
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except torch.OutOfMemoryError:
        many = "start it on several GPUs with training.weights: sharded"
        fix = f"{many}, set model.device_map to auto, or set CUDA_VISIBLE_DEVICES to nothing to compute on the CPU"
        raise ModelError(section.base, "is larger than the memory of the GPU", fix) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(section.base, f"cannot be loaded ({first_line(error)})") from None
    FORMATS[section.quantization].settle(model, torch_dtype(dtype))
    model.requires_grad_(False)
    return model.eval()


def prepare_for_training(model: Any, kind: str) -> Any:
    """k-bit preparation before adapters are attached.

    `lean` leaves a frozen base as it is: RMSNorm computes in float32 anyway, and lifting embeddings and lm_head would
    cost 2.1 GB on LLaMA-3-8B. `peft` is PEFT's own preparation, which lifts every 16-bit parameter to float32.
    """
    if kind == "lean":
        return model
    from peft import prepare_model_for_kbit_training

    # Checkpointing is the training plan's to decide.
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def _max_memory(limits: Mapping[int | str, str] | None) -> dict[int | str, str] | None:
    # A mapping that went through JSON has text for keys; accelerate wants GPUs by number.
    return None if limits is None else {int(k) if str(k).isdigit() else k: value for k, value in limits.items()}
