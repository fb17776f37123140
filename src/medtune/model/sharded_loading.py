"""A base model loaded layer by layer, each process keeping its part of the packed weights of every layer.

Neither a device nor host memory ever holds more than the parts and two layers: one in 16 bit, which is quantised, and
one that is packed. A large head is shared out as well, and on a GPU the table of embeddings stays in host memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medtune.config.schema import ModelSection
from medtune.errors import ModelError, first_line
from medtune.model.answer_loss import can_share_head
from medtune.model.decoder_structure import can_fuse_layers, decoder_layers
from medtune.model.host_store import HostMemoryError, move_embeddings_to_host
from medtune.model.loading import ModelFiles
from medtune.model.quantization import FORMATS
from medtune.model.sharding import ShardedWeights
from medtune.model.shared_head import SharedHead
from medtune.model.stored_weights import check_quantization, stored_quantization
from medtune.runtime.hardware import torch_dtype
from medtune.runtime.progress import progress_bar, say


def load_in_shards(
    files: ModelFiles, section: ModelSection, *, device: str, dtype: str, embeddings_in_host: bool = True
) -> tuple[nn.Module, ShardedWeights]:
    """The base model on `device`, frozen and in evaluation mode, and its weights that are shared out.

    Norms, and a head that is small or tied to the embeddings, are whole in every process. Raises ModelError.
    """
    if not FORMATS[section.quantization].packed:
        raise ModelError("only packed weights are shared out", fix="set model.quantization to nf4")
    check_quantization(files.path, section)
    model = _without_weights(files.path, dtype, section.base)
    if not can_fuse_layers(model):
        raise ModelError(section.base, "its layers cannot be shared out", "set training.weights to auto")
    is_stored_packed = stored_quantization(files.path) is not None
    shards, layers = ShardedWeights(), decoder_layers(model)
    names = {module: name for name, module in model.named_modules()}
    with ExitStack() as stack:
        stored = _Stored(files.path, stack)
        with progress_bar("Loading layers", len(layers), unit="layers") as advance:
            for layer in layers:
                _pack_linear(layer, names[layer], stored, torch_dtype(dtype), device, is_packed=is_stored_packed)
                _fill(layer, names[layer], stored, torch_dtype(dtype), device)
                shards.add(layer)
                advance(1)
        is_tied = bool(model.config.get_text_config().tie_word_embeddings)
        if can_share_head(model):
            head = stored[f"{names[model.get_output_embeddings()]}.weight"]
            model.set_output_embeddings(SharedHead(head, shards, dtype=torch_dtype(dtype), device=device))
        embeddings = model.get_input_embeddings()
        if embeddings_in_host and device != "cpu" and type(embeddings) is nn.Embedding and not is_tied:
            _fill(embeddings, names[embeddings], stored, torch_dtype(dtype), "cpu")
            _keep_in_host(model, device)
        _fill(model, "", stored, torch_dtype(dtype), device, is_tied=is_tied)
    model.tie_weights()
    if lacking := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise ModelError(files.path, f"its weights lack {lacking[0]}", "give a whole model")
    model.is_loaded_in_4bit = True  # by which PEFT chooses its layers
    FORMATS[section.quantization].settle(model, torch_dtype(dtype))
    model.requires_grad_(False)
    return model.eval(), shards


def _keep_in_host(model: Any, device: str) -> None:
    try:
        move_embeddings_to_host(model, device)
    except HostMemoryError as error:
        say(f"embeddings go to the device: {first_line(error)}")
        model.get_input_embeddings().to(device)


def _without_weights(path: Path, dtype: str, name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    from medtune.model.attention import register_packed_attention

    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config,
                dtype=torch_dtype(dtype),
                attn_implementation=register_packed_attention(),
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(name, f"cannot be loaded ({first_line(error)})") from None


class _Stored(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors files by name, each read when it is asked for."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self._path = path
        self._files: dict[str, Any] = {}
        try:
            for file in sorted(path.glob("*.safetensors")):
                opened = stack.enter_context(safe_open(file, framework="pt"))
                self._files |= dict.fromkeys(opened.keys(), opened)
        except (OSError, SafetensorError) as error:
            raise ModelError(path, f"cannot be loaded ({first_line(error)})") from None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._files:
            raise ModelError(self._path, f"its weights lack {name}", "give a whole model")
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _pack_linear(
    layer: nn.Module, name: str, stored: _Stored, dtype: torch.dtype, device: str, *, is_packed: bool
) -> None:
    """Replace the linear layers of a decoder layer by bitsandbytes' own, with their weights."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for place, plain in [(n, m) for n, m in layer.named_modules() if type(m) is nn.Linear]:
        key = f"{name}.{place}.weight"
        linear = Linear4bit(
            plain.in_features, plain.out_features, bias=plain.bias is not None, compute_dtype=dtype,
            compress_statistics=True, quant_type="nf4", device="meta",
        )  # fmt: skip
        if is_packed:
            statistics = {other: stored[other] for other in stored if other.startswith(f"{key}.")}
            linear.weight = Params4bit.from_prequantized(
                stored[key], statistics, requires_grad=False, device=device, module=linear
            )
        else:
            linear.weight = Params4bit(
                stored[key].to(dtype), requires_grad=False, compress_statistics=True, quant_type="nf4", module=linear
            ).to(device)
        parent, _, own = place.rpartition(".")
        setattr(layer.get_submodule(parent), own, linear)


def _fill(
    module: nn.Module, name: str, stored: _Stored, dtype: torch.dtype, device: str, *, is_tied: bool = False
) -> None:
    """Give every parameter of `module` that has no memory yet its values, and compute what is not stored.

    A model whose head is tied to its embeddings need not store both.
    """
    for place, parameter in list(module.named_parameters()):
        key = f"{name}.{place}".lstrip(".")
        if not parameter.is_meta or (is_tied and key not in stored):
            continue
        parent, _, own = place.rpartition(".")
        value = nn.Parameter(stored[key].to(device, dtype), requires_grad=False)
        setattr(module.get_submodule(parent), own, value)
    for place, inner in list(module.named_modules()):
        if any(buffer.is_meta for buffer in inner.buffers(recurse=False)):
            # Angles of positions, which follow from the configuration; computed where transformers computes them.
            parent, _, own = place.rpartition(".")
            setattr(module.get_submodule(parent), own, type(inner)(config=inner.config).to(device))
