"""A LoRA adapter on disk: what its configuration may say, and whether its weights are all there. Nothing of it runs."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from medtune.errors import ModelError, first_line
from medtune.model.adapter_kinds import why_unsupported
from medtune.runtime.terminal import one_line
from medtune.storage.hub import ADAPTER_FILES
from medtune.storage.reading import DamagedError, check_type, read_mapping

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
_PlainName = Annotated[str, Field(pattern=r"^[\w.^$-]{1,200}$")]
_Pattern = Annotated[str, Field(min_length=1, max_length=1000)]
_Rank = Annotated[int, Field(ge=1, le=4096)]
_Alpha = Annotated[float, Field(gt=0, le=1e6)]
_Token = Annotated[int, Field(ge=0, le=2**31)]
# A layer's name is short, so that a pattern takes long only where it repeats what repeats.
_REPEATED_GROUP, _REPETITION, _MAX_REPETITIONS = re.compile(r"\)[*+{]"), re.compile(r"[*+{]"), 6
_NEEDED = "a LoRA adapter in PEFT's format is needed"


class StoredLora(BaseModel):
    """What is taken from a stored adapter's configuration. PEFT has far more; the rest must be as it is by default."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] | None = None
    base_model_name_or_path: Annotated[str, Field(min_length=1)] | None = None
    revision: str | None = None
    r: _Rank = 8
    lora_alpha: _Alpha = 8
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[list[_PlainName], Field(min_length=1)] | Annotated[str, Field(min_length=1)]
    exclude_modules: list[_PlainName] | str | None = None
    modules_to_save: list[_PlainName] | None = None
    trainable_token_indices: list[_Token] | dict[_PlainName, list[_Token]] | None = None
    ensure_weight_tying: bool = False
    rank_pattern: dict[_Pattern, _Rank] = {}
    alpha_pattern: dict[_Pattern, _Alpha] = {}
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[_PlainName] | _PlainName | None = None
    bias: Literal["none", "all", "lora_only"] = "none"
    # How its first weights were drawn, which its weights then replace. Other ways change the base's weights too.
    init_lora_weights: bool | Literal["gaussian", "eva", "orthogonal"] = True
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False


# What has no effect on an adapter whose weights are read: the version that wrote it, and settings of its first weights.
_WITHOUT_EFFECT = {
    "peft_version", "inference_mode", "qalora_group_size", "eva_config", "megatron_core", "runtime_config",
}  # fmt: skip


def read_adapter_config(path: Path) -> dict[str, Any]:
    """What `adapter_config.json` in the folder `path` says, as far as it has an effect. Raises ModelError.

    LoRA is taken, with rsLoRA and DoRA: no other method, no classes or libraries by name, no layers added.
    """
    where = f"{one_line(str(path / CONFIG_NAME))}"
    try:
        stored = read_mapping(path / CONFIG_NAME)
        if reason := why_unsupported(stored):
            raise ModelError(where, *reason)
        values = check_type(StoredLora, stored).model_dump()
    except FileNotFoundError:
        raise ModelError(where, "missing", "fetch or save the adapter again") from None
    except DamagedError as error:
        raise ModelError(where, str(error), _NEEDED) from None
    for name in _foreign_settings(stored):
        raise ModelError(where, f"{name} is not of a plain LoRA adapter, and is never followed", "give another adapter")
    for name in ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"):
        given = values[name]
        patterns = [given] if isinstance(given, str) else given if isinstance(given, dict) else []
        if any(not _is_tame(pattern) for pattern in patterns):
            raise ModelError(where, f"{name} is no pattern, or one that could take forever", "list the layers' names")
    return values


def _foreign_settings(stored: dict[str, Any]) -> list[str]:
    """Settings that PEFT would follow and medtune does not. What PEFT does not know either, it passes over."""
    from peft import LoraConfig

    defaults = asdict(LoraConfig())
    names = sorted(stored.keys() & defaults.keys() - StoredLora.model_fields.keys() - _WITHOUT_EFFECT)
    return [name for name in names if stored[name] and stored[name] != defaults[name]]


def _is_tame(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    few = len(pattern) <= 1000 and len(_REPETITION.findall(pattern)) <= _MAX_REPETITIONS
    return few and not _REPEATED_GROUP.search(pattern)


def require_own_files(path: Path) -> None:
    """Raises ModelError if a file of the adapter in `path` is a link that leads out of its folder.

    The Hub's cache is made of such links, from a snapshot to the store beside it.
    """
    folder = path.resolve()
    homes = [folder, *([folder.parents[1] / "blobs"] if folder.parent.name == "snapshots" else [])]
    for name in ADAPTER_FILES:
        for file in sorted(path.glob(name)):
            target = file.resolve()
            if not any(target.is_relative_to(home) for home in homes):
                link, where = (one_line(str(one)) for one in (file, target))
                raise ModelError(link, f"a link out of its folder, to {where}", "put the file itself there")


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights in the folder `path` by their names, read from the file's header. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    file = path / WEIGHTS_NAME
    try:
        with safe_open(file, framework="pt") as weights:
            return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        fix = "fetch or save it again"
        raise ModelError(one_line(str(file)), f"not a safetensors file ({first_line(error)})", fix) from None


def require_fitting_weights(model: Any, path: Path, renamed: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raises ModelError unless the weights in `path` are those that `model`'s adapter has, finite and whole.

    `renamed` has the names under which the model knows weights that the file calls otherwise.
    """
    if problem := weight_problem(model, path, renamed):
        fix = "name the base that it was trained on, or train or fetch it again"
        raise ModelError(path, f"this adapter does not fit the base model ({WEIGHTS_NAME} {problem})", fix)


def weight_problem(model: Any, path: Path, renamed: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """What is wrong with the weights in `path`, unless they are those that `model`'s adapter has, finite and whole.

    PEFT itself passes over weights that are missing, and over those that have no place. Embeddings may be there
    besides: PEFT stores them where the vocabulary was changed. Raises ModelError if they cannot be read.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    places = get_peft_model_state_dict(model, save_embedding_layers=False)
    found = {renamed.get(name, name): shape for name, shape in weight_shapes(path).items()}
    if missing := sorted(places.keys() - found.keys()):
        return f"lacks {len(missing)} of the adapter's {len(places)} weights, such as {missing[0]}"
    places = {**{name: place for name, place in _embeddings(model).items() if name in found}, **places}
    if surplus := sorted(found.keys() - places.keys()):
        return f"holds weights that have no place in the model, such as {one_line(surplus[0])}"
    for name, place in places.items():
        if found[name] != tuple(place.shape):
            return f"{name} has shape {found[name]}, and its place {tuple(place.shape)}"
    for name, weight in load_file(path / WEIGHTS_NAME).items():
        if not weight.is_floating_point() or not torch.isfinite(weight).all():
            return f"{name} holds NaN, infinite or whole numbers"
    return None


def _embeddings(model: Any) -> dict[str, Any]:
    """The base's input and output embeddings in a PeftModel, by the names that a file has for them."""
    ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if any(module is end or module is getattr(end, "base_layer", None) for end in ends)
    }
