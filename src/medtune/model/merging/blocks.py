"""An adapter merged into the 16-bit base that it was trained on, block by block, into files that anybody can load.

What is added to a weight is computed in float32 and rounded once. Never into packed 4-bit weights: what NF4 has lost
would be lost for good, and the sum rounded to 4 bit once more.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtune.errors import ModelError, Option
from medtune.model.adapter_files import WEIGHTS_NAME, read_adapter_config, weight_problem
from medtune.model.loading import model_without_weights, stored_quantization
from medtune.model.tensor_files import (
    INDEX_NAME,
    SINGLE_NAME,
    StoredTensor,
    TensorFileWriter,
    blocks,
    by_alignment,
    stored_in,
    stored_tensors,
)
from medtune.records import FileRecord
from medtune.runtime.hardware import torch_dtype
from medtune.runtime.terminal import one_line

# 2 GB, and of that a MiB for the header. A tensor that is larger by itself has a file of its own.
SHARD_BYTES = 2 * 10**9 - 2**20
# Of a tensor in float32, at once. LLaMA-3's head takes 2.1 GB, its block some copies of this.
BLOCK_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class LowRankUpdate:
    """`scaling` · B A, (outputs, inputs), or its transpose for layers that keep their weights that way round."""

    a: StoredTensor
    b: StoredTensor
    scaling: float
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The weight that it is for."""
        outputs, inputs = self.b.shape[0], self.a.shape[1]
        return (inputs, outputs) if self.transposed else (outputs, inputs)

    def rows_of(self, weight: StoredTensor) -> Callable[[int, int], Tensor]:
        """A function that computes rows of the update in float32, in PEFT's order of operations."""
        a, b = self.a.read().float(), self.b.read().float()

        def rows(start: int, stop: int) -> Tensor:
            product = (b @ a[:, start:stop]).T if self.transposed else b[start:stop] @ a
            return product.mul_(self.scaling)

        return rows


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """A tensor to be written: where it comes from, as what, and what is added to it."""

    source: StoredTensor
    dtype: torch.dtype
    update: LowRankUpdate | None = None

    @property
    def bytes(self) -> int:
        """What it will take."""
        return self.source.rows * self.source.row_elements * self.dtype.itemsize


@dataclass(frozen=True)
class MergePlan:
    """What the merged model's files will hold, known from shapes alone.

    `files` maps a file's name to the names of its tensors. `untied` says that input and output embeddings, one tensor
    in the base, are two from here on, since the adapter changes one of them; `changed` counts the tensors that it
    changes.
    """

    tensors: Mapping[str, MergedTensor]
    files: Mapping[str, list[str]]
    dtype: str
    untied: bool = False
    changed: int = 0

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
        raise ModelError(
            name,
            f"its weights are stored as {kind}, and an adapter is only merged into the 16-bit original",
            "train on that (model.base), or serve base and adapter side by side",
        )
    model = model_without_weights(base, dtype, name)
    updates, replaced = _adapter_parts(model, adapter)
    kept = _kept_in_float32(model)
    tensors = {
        key: MergedTensor(tensor, _output_dtype(key, tensor, torch_dtype(dtype), kept))
        for key, tensor in stored_tensors(base).items()
    }
    untied = _untie(model, [*updates, *replaced], tensors)
    parts: dict[str, LowRankUpdate | StoredTensor] = {**updates, **replaced}
    for target, part in parts.items():
        key = _stored_name(target, part.shape, tensors, str(model.base_model_prefix))
        if key is None:
            raise ModelError(name, f"holds no {one_line(target)} that the adapter in {adapter} could be merged into")
        if isinstance(part, LowRankUpdate):
            _require_numbers(key, tensors[key].source, name)
            tensors[key] = replace(tensors[key], update=part)
        else:
            tensors[key] = replace(tensors[key], source=part)
    return MergePlan(tensors, _shards(tensors, shard_bytes), dtype, untied, len(updates) + len(replaced))


def write_merge(
    plan: MergePlan,
    folder: Path,
    *,
    on_bytes: Callable[[int], None] = lambda count: None,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, FileRecord]:
    """Write the shards of `plan`, and their index, to `folder`; `on_bytes` is told what each block took.

    Returns sizes and checksums of the shards. Raises ModelError, naming the tensor, if a merged number is NaN or
    infinite.
    """
    written = {}
    for file, names in plan.files.items():
        shapes = {name: (plan.tensors[name].dtype, plan.tensors[name].source.shape) for name in names}
        with TensorFileWriter(folder / file, shapes) as writer:
            for name in names:
                _write_tensor(name, plan.tensors[name], writer, on_bytes, block_bytes)
        written[file] = writer.record()
    if len(plan.files) > 1:
        places = {name: file for file, names in plan.files.items() for name in names}
        index = {"metadata": {"total_size": plan.bytes}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return written


def _write_tensor(
    name: str, tensor: MergedTensor, writer: TensorFileWriter, on_bytes: Callable[[int], None], block_bytes: int
) -> None:
    source, rows = tensor.source, tensor.update.rows_of(tensor.source) if tensor.update else None
    for start, stop in blocks(source, block_bytes):
        block = source.read_rows(start, stop)
        if rows is not None:
            block = block.float().add_(rows(start, stop))
        block = block.to(tensor.dtype)
        if block.is_floating_point() and not torch.isfinite(block).all():
            raise ModelError(
                one_line(name),
                f"merged, it holds numbers that are NaN or beyond {_dtype_name(tensor.dtype)}",
                ("train the adapter again if it is broken, or give a wider ", Option("dtype")),
            )
        on_bytes(writer.write(block))


def _adapter_parts(model: Any, adapter: Path) -> tuple[dict[str, LowRankUpdate], dict[str, StoredTensor]]:
    """What an adapter adds to which weights of `model`, and which of them it replaces. Raises ModelError.

    PEFT itself says which layers it stands at and by how much it is scaled: patterns of names are its business.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    config = read_adapter_config(adapter)
    for setting in ("use_dora", "lora_bias"):
        if config[setting]:
            raise ModelError(adapter, f"an adapter with {setting} is not merged here", "serve it beside its base")
    wrapped = _without_weights(lambda: get_peft_model(model, LoraConfig(**config), low_cpu_mem_usage=True), adapter)
    if problem := weight_problem(wrapped, adapter):
        raise ModelError(
            adapter,
            f"this adapter does not fit the base model ({WEIGHTS_NAME} {problem})",
            "name the base that it was trained on, or train or fetch it again",
        )
    weights = {key.removeprefix("base_model.model."): tensor for key, tensor in _weights(adapter).items()}
    updates = {}
    for path, layer in wrapped.named_modules():
        if isinstance(layer, LoraLayer) and "default" in layer.scaling:
            name = path.removeprefix("base_model.model.")
            is_embedding = f"{name}.lora_embedding_A" in weights
            a, b = (
                weights.pop(f"{name}.lora_embedding_{side}" if is_embedding else f"{name}.lora_{side}.weight")
                for side in "AB"
            )
            if len(a.shape) != 2:
                raise ModelError(adapter, f"{one_line(name)} is no linear layer", "serve this adapter beside its base")
            transposed = is_embedding or bool(getattr(layer, "fan_in_fan_out", False))
            updates[f"{name}.weight"] = LowRankUpdate(a, b, float(layer.scaling["default"]), transposed)
    return updates, {key.replace(".base_layer.", "."): tensor for key, tensor in weights.items()}


def _without_weights(wrap: Callable[[], Any], adapter: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"), torch.device("meta"):
            return wrap()
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(adapter, f"this adapter does not fit the base model ({reason})") from None


def _weights(adapter: Path) -> dict[str, StoredTensor]:
    return stored_in(adapter / WEIGHTS_NAME)


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


def _require_numbers(key: str, source: StoredTensor, name: str) -> None:
    if not source.dtype.is_floating_point:
        raise ModelError(
            name,
            f"{one_line(key)} is stored as {_dtype_name(source.dtype)}, packed",
            "an adapter is only merged into the 16-bit original",
        )


def _shards(tensors: Mapping[str, MergedTensor], shard_bytes: int) -> dict[str, list[str]]:
    """Which tensors go into which file, under transformers' names for them."""
    from huggingface_hub import split_state_dict_into_shards_factory

    split = split_state_dict_into_shards_factory(
        dict(tensors),
        get_storage_size=lambda tensor: tensor.bytes,
        filename_pattern=SINGLE_NAME.replace(".safetensors", "{suffix}.safetensors"),
        max_shard_size=shard_bytes,
    )
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    return {
        file: by_alignment({name: dtypes[name] for name in names}) for file, names in split.filename_to_tensors.items()
    }


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
