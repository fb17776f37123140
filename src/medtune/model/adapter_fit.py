"""Where the weights of a stored adapter belong in a model: names of wrappers that also see, and other vocabularies.

A model that also sees has its decoder under another name than the text model alone, so that an adapter made on one does
not find its layers in the other. PEFT would pass over all of it in silence.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.errors import ModelError
from medtune.model.adapter_files import read_adapter_config, weight_shapes
from medtune.runtime.progress import say
from medtune.runtime.terminal import one_line

_PREFIX = "base_model.model."
_LORA = re.compile(r"\.(lora_(embedding_)?[AB]|lora_magnitude_vector)(\.weight|\.bias)?$")
_LAYER = re.compile(r"(?:^|\.)layers\.\d+\.")
# The least share of the base's rows that an adapter's embeddings have: models are padded, and shrink by little.
LEAST_ROWS = 0.9
# Parts of names of towers that do not read text.
_OTHER_SENSES = re.compile(r"(vision|visual|image|audio|speech|mm_projector|multi_modal)")


@dataclass(frozen=True, slots=True)
class AdapterFit:
    """A stored adapter as it fits a model.

    `settings` are PEFT's, for the model's own names; `renamed` has the model's names of weights that the file calls
    otherwise, and `prefixes` the same as patterns and replacements, for PEFT. `rows` are those of the embeddings that
    it brings, None where it brings none; `own_embeddings` says that these take the place of the base's.
    """

    settings: Mapping[str, Any]
    renamed: Mapping[str, str]
    prefixes: Mapping[str, str]
    rows: int | None
    own_embeddings: bool


def fit_adapter(model: Any, path: Path) -> AdapterFit:
    """How the adapter in the folder `path` fits `model`, which has none yet. Raises ModelError if it cannot."""
    settings, shapes = read_adapter_config(path), weight_shapes(path)
    prefixes = _other_prefixes(model, shapes, path)
    renamed = {name: new for name in shapes if (new := _renamed(name, prefixes)) != name}
    if renamed:
        settings = _for_own_names(settings, shapes, renamed)
    stored = {renamed.get(name, name): shape for name, shape in shapes.items()}
    ends = _end_names(model)
    # What `modules_to_save` names, PEFT keeps beside the base's own.
    whole = set(settings["modules_to_save"] or ())
    own = any(name in stored and not whole & set(name.split(".")) for names in ends for name in names)
    return AdapterFit(settings, renamed, prefixes, _rows(model, stored, ends), own)


def _rows(model: Any, stored: Mapping[str, tuple[int, ...]], ends: Sequence[Sequence[str]]) -> int | None:
    """Rows of the stored embeddings, if they can be those of this model with other tokens; a few come or go."""
    had, width = model.get_input_embeddings().weight.shape
    brought = [next((stored[name] for name in names if name in stored), None) for names in ends]
    is_tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    shapes = {shape for shape in brought if shape is not None or not is_tied}
    if len(shapes) != 1 or (shape := shapes.pop()) is None or len(shape) != 2:
        return None  # what does not fit is named where weights are compared
    return shape[0] if shape[1] == width and shape[0] >= had * LEAST_ROWS else None


def match_vocabulary(model: Any, path: Path, rows: int | None) -> bool:
    """Give `model` as many rows of embeddings as the adapter in `path` brings; returns whether it had others.

    New rows are for the adapter to fill; without it they are the mean of the others.
    """
    had = model.get_input_embeddings().weight.shape[0]
    if rows is None or rows == had:
        return False
    model.resize_token_embeddings(rows, mean_resizing=False)
    say(f"embeddings: {rows:,} rows, as the adapter {path.name} brings them, in place of the base's {had:,}")
    return True


def _end_names(model: Any) -> list[list[str]]:
    """For input and output embeddings, the names that a file may have for them."""
    ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
    names = {id(module): name for name, module in model.named_modules()}
    return [[f"{_PREFIX}{names[id(end)]}.{tail}" for tail in ("weight", "base_layer.weight")] for end in ends]


def _other_prefixes(model: Any, shapes: Iterable[str], path: Path) -> dict[str, str]:
    """The file's prefixes of `layers` that the model lacks, as patterns, with what the model has in their place."""
    names = {name for name, _ in model.named_modules()}
    own = {_before_layers(name) for name in names if _LAYER.search(f"{name}.") and not _OTHER_SENSES.search(name)}
    modules = {_module_of(name) for name in shapes}
    strange = sorted(module for module in modules if module not in names)
    if not strange:
        return {}
    if blind := [module for module in strange if _OTHER_SENSES.search(module)]:
        problem = (
            f"trains {len(blind)} layers that do not read text, such as {one_line(blind[0])}, which this model lacks"
        )
        raise ModelError(path, problem, "give an adapter of the language model alone")
    found = {_before_layers(module) for module in strange if _LAYER.search(f"{module}.")}
    if len(own) != 1 or len(found) != 1 or own == found:
        return {}  # for what follows to name what does not fit
    prefixes = {f"^{re.escape(found.pop())}(?=layers\\.|embed_tokens|norm)": own.pop()}
    heads = [name for name in names if name.rsplit(".", 1)[-1] == "lm_head"]
    return {**prefixes, r"^(?:\w+\.)*lm_head(?=\.)": heads[0]} if heads else prefixes


def _before_layers(name: str) -> str:
    """`model.` of `model.layers.0.mlp`."""
    match = _LAYER.search(f"{name}.")
    return "" if match is None else name[: match.start()] + ("." if match.start() else "")


def _module_of(weight: str) -> str:
    """The model's module that a weight in a file belongs to."""
    name = _LORA.sub("", weight.removeprefix(_PREFIX))
    for tail in (".token_adapter.trainable_tokens_delta", ".base_layer.weight", ".base_layer.bias", ".weight", ".bias"):
        name = name.removesuffix(tail)
    return name


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    bare = name.removeprefix(_PREFIX)
    for pattern, replacement in prefixes.items():
        new, count = re.subn(pattern, replacement, bare)
        if count:
            return f"{_PREFIX}{new}"
    return name


def _for_own_names(
    settings: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], renamed: Mapping[str, str]
) -> dict[str, Any]:
    """Settings that name the layers that the file has weights for, with ranks and scales as patterns gave them."""
    from peft.utils.other import get_pattern_key

    targets, ranks, scales = [], {}, {}
    for name, shape in shapes.items():
        if not name.endswith(("lora_A.weight", "lora_embedding_A")):
            continue
        module, own = _module_of(name), _module_of(renamed.get(name, name))
        targets.append(own)
        ranks[f"^{re.escape(own)}"] = shape[0]
        if (key := get_pattern_key(settings["alpha_pattern"].keys(), module)) in settings["alpha_pattern"]:
            scales[f"^{re.escape(own)}"] = settings["alpha_pattern"][key]
    chosen = dict.fromkeys(("exclude_modules", "layers_to_transform", "layers_pattern"))
    return {**settings, **chosen, "target_modules": targets, "rank_pattern": ranks, "alpha_pattern": scales}
