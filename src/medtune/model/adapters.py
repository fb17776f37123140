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
from medtune.model.adapter_fit import AdapterFit, fit_adapter, match_vocabulary
from medtune.model.adapter_kinds import how_to_convert
from medtune.model.chat_templates import TEMPLATE_NAME
from medtune.model.first_weights import correct_quantization, peft_settings
from medtune.model.fused.projections import is_lora
from medtune.model.quantization import NF4, PLAIN
from medtune.runtime.progress import say
from medtune.runtime.terminal import one_line
from medtune.storage.hub import ADAPTER_SETTINGS, fetch_adapter
from medtune.storage.reading import DamagedError, describe_file, read_mapping

PICKLED_NAME = "adapter_model.bin"


def resolve_adapter(adapter: str) -> Path:
    """The folder of an adapter given as a folder or a Hub id. Raises ModelError if it is none."""
    path = Path(adapter)
    if not os.path.isdir(path):  # unlike Path.is_dir, no error for a name that is too long
        if os.path.exists(path) or adapter.startswith((".", "/", "~")) or adapter.count("/") != 1:
            raise ModelError(adapter, "no such adapter folder", "give an existing folder or a Hub id")
        path, present = fetch_adapter(adapter)
    else:
        present = os.listdir(path)
    if not (path / WEIGHTS_NAME).is_file() and (path / CONFIG_NAME).is_file() and PICKLED_NAME in present:
        problem = f"no {WEIGHTS_NAME} in it, but a pickle ({PICKLED_NAME}), which can run code and is never loaded"
        raise ModelError(adapter, problem, how_to_convert())
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (path / name).is_file():
            raise ModelError(adapter, f"no {name} in it", "a LoRA adapter in PEFT's safetensors format is needed")
    require_own_files(path)
    read_adapter_config(path)
    weight_shapes(path)
    return path


def say_other_base(path: Path, base: str) -> None:
    """Say so where an adapter names another base than the one that it is put on."""
    named = read_adapter_config(path)["base_model_name_or_path"]
    if named and named != base and not (os.path.isdir(base) and os.path.realpath(named) == os.path.realpath(base)):
        say(f"adapter: made on {one_line(named)}, and put on {base}; with other weights than its own it does harm")


def own_tokenizer(adapter: str | None) -> Path | None:
    """The folder of the tokenizer or chat template that an adapter brings; None where it brings neither.

    Raises ModelError if there is no such adapter.
    """
    if adapter is None:
        return None
    path = resolve_adapter(adapter)
    return path if any((path / name).is_file() for name in ("tokenizer.json", TEMPLATE_NAME)) else None


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
    model = {"base": adapter_base(path), "revision": read_adapter_config(path)["revision"], "adapter": str(path)}
    return _with_settings(path, model)


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


def attach_new_adapter(
    model: Any, lora: LoraSection, seed: int, *, base: Path | None = None, shapes_only: bool = False
) -> Any:
    """Wrap `model` with a fresh float32 adapter, whose first weights depend on `seed` and the base alone.

    `base` is the folder of its files, from which LoftQ reads; `shapes_only` is for a model that holds no weights.
    Raises ModelError.
    """
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(seed)
    try:
        # PEFT warns of starts that change the base, and of tied embeddings: what is saved fits the untouched base.
        with warnings.catch_warnings(action="ignore"):
            wrapped = get_peft_model(model, peft_settings(lora, shapes_only=shapes_only))
    except ValueError as error:
        raise ModelError("lora.targets", str(error).splitlines()[0]) from None
    if lora.init == "loftq" and base is not None:
        correct_quantization(wrapped, base)
    return lift_adapter(wrapped)


def attach_adapter(model: Any, path: Path, *, trainable: bool) -> Any:
    """Wrap `model` with the adapter stored in `path`. Raises ModelError if it does not fit the model."""
    from peft import LoraConfig, PeftModel

    fit = fit_adapter(model, path)
    if trainable and fit.own_embeddings:
        problem = "brings embeddings in place of the base's, which a training that starts from it would not save"
        raise ModelError(path, problem, "merge it into its base, and train on the merged model")
    match_vocabulary(model, path, fit.rows)
    head = model.get_output_embeddings()
    # PEFT sees those of the file's settings that were checked, and no others.
    config = LoraConfig(**fit.settings, inference_mode=not trainable)
    try:
        # What has another shape is warned of there, and refused below in one line.
        with warnings.catch_warnings(action="ignore"):
            wrapped = PeftModel.from_pretrained(
                model,
                path,
                config=config,
                is_trainable=trainable,
                ignore_mismatched_sizes=True,
                key_mapping=dict(fit.prefixes),
            )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        problem = f"this adapter does not fit the base model ({shorten(reason, 300, placeholder=' …')})"
        raise ModelError(path, problem) from None
    require_fitting_weights(wrapped, path, fit.renamed)
    if trainable and wrapped.get_output_embeddings() is not head and is_lora(wrapped.get_output_embeddings()):
        problem = "has an adapter on the head, which TRL's trainer does not train"
        raise ModelError(path, problem, "merge it into its base, and train on the merged model")
    _say_what_it_brings(fit)
    return lift_adapter(wrapped) if trainable else wrapped.eval()


def _say_what_it_brings(fit: AdapterFit) -> None:
    if fit.prefixes:
        say("adapter: made on a model of other names for its layers, which are found by their numbers")
    if fit.own_embeddings:
        say("adapter: it brings embeddings, which take the place of the base's, also where it is left out")


def lift_adapter(model: Any) -> Any:
    """Make every trainable parameter float32: in 16 bit, small updates are lost and the gradient scaler fails."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model
