"""Which tensors a merged model has, where each comes from, and the file that it goes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medtune.errors import ModelError
from medtune.model.adapter_fit import fit_adapter, match_vocabulary
from medtune.model.loading import model_without_weights
from medtune.model.merging.updates import LowRankUpdate, TokenUpdate, Update, adapter_parts
from medtune.model.stored_weights import stored_quantization
from medtune.model.tensor_files import SINGLE_NAME, StoredTensor, stored_tensors
from medtune.runtime.hardware import torch_dtype
from medtune.runtime.terminal import one_line

# 2 GB, and of that a MiB for the header. A tensor that is larger by itself has a file of its own.
SHARD_BYTES = 2 * 10**9 - 2**20


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """A tensor to be written: where it comes from, as what, and what is added to it."""

    source: StoredTensor
    dtype: torch.dtype
    update: Update | None = None

    @property
    def bytes(self) -> int:
        """What it will take."""
        return self.source.rows * self.source.row_elements * self.dtype.itemsize


@dataclass(frozen=True)
class MergePlan:
    """What the merged model's files will hold, known from shapes alone.

    `files` maps a file's name to the names of its tensors. `untied` says that input and output embeddings, one tensor
    in the base, are two from here on, since the adapter changes one of them; `changed` counts the tensors that it
    changes, and `vocabulary` are the rows of its embeddings where the base has another number of them.
    """

    tensors: Mapping[str, MergedTensor]
    files: Mapping[str, list[str]]
    dtype: str
    untied: bool = False
    changed: int = 0
    vocabulary: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors.values())


def plan_merge(base: Path, adapter: Path, *, name: str, dtype: str, shard_bytes: int = SHARD_BYTES) -> MergePlan:
    """How the adapter in the folder `adapter` is merged into the model in `base`, its weights written in `dtype`.

    `name` is what messages call the base. Raises ModelError if its weights are packed, if the adapter does not fit it,
    is damaged, or is of a kind that is not merged here.
    """
    if (packed := stored_quantization(base)) is not None:
        kind = one_line(str(packed.get("quant_method", "quantised weights")))
        problem = f"its weights are stored as {kind}, and an adapter is only merged into the 16-bit original"
        raise ModelError(name, problem, "train on that (model.base), or serve base and adapter side by side")
    model = model_without_weights(base, dtype, name)
    fit = fit_adapter(model, adapter)
    resized = match_vocabulary(model, adapter, fit.rows)
    updates, replaced = adapter_parts(model, adapter, fit)
    changed = len(updates.keys() | replaced.keys())
    kept = _kept_in_float32(model)
    tensors = {
        key: MergedTensor(tensor, _output_dtype(key, tensor, torch_dtype(dtype), kept))
        for key, tensor in stored_tensors(base).items()
    }
    # Embeddings that take the place of the base's come first: what else is done to those, is done to these.
    if resized or fit.own_embeddings:
        _replace_ends(model, replaced, tensors, name, adapter)
    # Tokens are trained in both embeddings where these are one.
    untying = [target for target, update in updates.items() if not isinstance(update, TokenUpdate)]
    untied = _untie(model, [*untying, *replaced], tensors)
    parts: dict[str, Update | StoredTensor] = {**replaced, **updates}
    for target, part in parts.items():
        key = _stored_name(target, part.shape, tensors, str(model.base_model_prefix))
        if key is None:
            raise ModelError(name, f"holds no {one_line(target)} that the adapter in {adapter} could be merged into")
        if isinstance(part, LowRankUpdate | TokenUpdate):
            if not (stored := tensors[key].source.dtype).is_floating_point:
                fix = "an adapter is only merged into the 16-bit original"
                raise ModelError(name, f"{one_line(key)} is stored as {dtype_name(stored)}, packed", fix)
            tensors[key] = replace(tensors[key], update=part)
        else:
            tensors[key] = replace(tensors[key], source=part)
    return MergePlan(tensors, _shards(tensors, shard_bytes), dtype, untied, changed, fit.rows if resized else None)


def _replace_ends(
    model: Any, replaced: dict[str, StoredTensor], tensors: dict[str, MergedTensor], name: str, adapter: Path
) -> None:
    """Put the adapter's embeddings in the place of the base's, of which they may have other rows. Raises ModelError."""
    prefix = str(model.base_model_prefix)
    ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
    for target in [f"{name}.weight" for name, module in model.named_modules() if any(module is end for end in ends)]:
        if (part := replaced.pop(target, None)) is None:
            continue
        key = next((key for key in (target, target.removeprefix(f"{prefix}.")) if key in tensors), None)
        if key is not None:
            tensors[key] = replace(tensors[key], source=part)
        elif not getattr(model.config.get_text_config(), "tie_word_embeddings", False):  # else one stands for both
            raise ModelError(name, f"holds no {one_line(target)} that the adapter in {adapter} could be merged into")


def _stored_name(target: str, shape: tuple[int, ...], tensors: Mapping[str, MergedTensor], prefix: str) -> str | None:
    """The name under which a file holds the model's tensor `target`.

    Files of older models leave out the prefix of the decoder, or have one more; those of models that also see put the
    decoder elsewhere, where only one layer of that number and shape will do.
    """
    names = (target, target.removeprefix(f"{prefix}."), f"{prefix}.{target}")
    found = [name for name in names if name in tensors and tensors[name].source.shape == shape]
    if not found and (tail := target.partition(".layers.")[2]):
        found = [name for name in tensors if name.endswith(f".layers.{tail}") and tensors[name].source.shape == shape]
        return found[0] if len(found) == 1 else None
    return found[0] if found else None


def _untie(model: Any, targets: Sequence[str], tensors: dict[str, MergedTensor]) -> bool:
    """Give input and output embeddings a tensor each where they share one and an adapter changes either.

    Whichever it changes, the other stays what it was. Returns whether it was so.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return False
    names = [f"{name}.weight" for name, module in model.named_modules() if module in (head, embeddings)]
    if not set(names) & set(targets):
        return False
    present = next((tensors[name] for name in names if name in tensors), None)
    if present is not None:
        for name in names:
            tensors.setdefault(name, present)
    return True


def _kept_in_float32(model: Any) -> tuple[str, ...]:
    """Parts of names whose numbers transformers keeps in float32, whatever the model's dtype."""
    found = (getattr(model, name, None) for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict"))
    return tuple(part for parts in found for part in parts or ())


def _output_dtype(name: str, tensor: StoredTensor, wanted: torch.dtype, kept: tuple[str, ...]) -> torch.dtype:
    is_kept = any(part in name.split(".") for part in kept)
    return wanted if tensor.dtype.is_floating_point and not is_kept else tensor.dtype


def _shards(tensors: Mapping[str, MergedTensor], shard_bytes: int) -> dict[str, list[str]]:
    """Which tensors go into which file, under transformers' names for them."""
    from huggingface_hub import split_state_dict_into_shards_factory

    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: tensor.bytes,
        filename_pattern=SINGLE_NAME.replace(".safetensors", "{suffix}.safetensors"),
        max_shard_size=shard_bytes,
    )
    # Widest numbers first, which keeps every tensor of a file aligned.
    return {
        file: sorted(names, key=lambda name: -tensors[name].dtype.itemsize)
        for file, names in split.filename_to_tensors.items()
    }


def dtype_name(dtype: torch.dtype) -> str:
    """As a configuration writes it: `bfloat16`."""
    return str(dtype).removeprefix("torch.")
