"""Storage formats of base weights: the one place that knows how each is packed, loaded, dequantised and named.

Loading, fused layers, plans, forecasts, the doctor and model cards ask a `StorageFormat`. A new format is a subclass
here with a place in `FORMATS`, and its name in `model.quantization` of the configuration's schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medtune.errors import ModelError, Option
from medtune.runtime.terminal import one_line
from medtune.storage.reading import DamagedError, check_type, read_mapping

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medtune.config.schema import ModelSection
    from medtune.model.kernels.gpu import PackedWeights

# How a plan holds packed weights: as they are stored, for which the first format gave the name, or dequantised once.
AS_STORED: Final = "nf4"
DEQUANTIZED: Final = "dequantized"


class StorageFormat:
    """Weights in the 16 or 32 bit of a model's files. Packed formats override what differs."""

    name: str = "none"
    """Its value in `model.quantization`."""
    label: str = "16 bit"
    """Its name in tables and notes."""
    description: str = "not quantised"
    """Its line in a model card."""
    method: str = "lora"
    """What training an adapter on such a base is called, as a tag of the Hub."""
    packed: bool = False
    """Whether weights have to be dequantised before they are multiplied."""

    def bytes_of(self, weight: Tensor) -> int:
        """Bytes of `weight` once the model is loaded; it is in the base's dtype, and may be on the `meta` device."""
        return weight.numel() * weight.element_size()

    def unpacking_bytes(self, width: int) -> float:
        """Bytes that dequantising a weight to an element of `width` bytes reads and writes."""
        return 0.0

    def settings(self, dtype: str) -> dict[str, Any]:
        """Arguments of transformers' `BitsAndBytesConfig` for computing in `dtype`; empty where it needs none."""
        return {}

    def loading_config(self, dtype: str) -> Any | None:
        """The `quantization_config` that transformers loads it by, or None if it needs none."""
        if not (settings := self.settings(dtype)):
            return None
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(**settings)

    def reads(self, stored: Mapping[str, Any]) -> bool:
        """Whether weights that `quantization_config` in a model's config.json describes are in this format."""
        return False

    def settle(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Prepare the layers of a model that was just loaded for training and answers in `dtype`."""

    def holds(self, layer: nn.Module) -> bool:
        """Whether the weight of `layer` is in this format."""
        return True

    def dense(self, layer: nn.Linear) -> Tensor:
        """The weight of `layer`, (outputs, inputs), dequantised."""
        return layer.weight.data

    def joined(self, layers: Sequence[nn.Linear]) -> PackedWeights | None:
        """All `layers` as one kernel dequantises them in one launch; None where there is no such kernel."""
        return None


class _NF4(StorageFormat):
    """4-bit NormalFloat with double quantisation (Dettmers et al. 2023, QLoRA), by bitsandbytes."""

    name = "nf4"
    label = "NF4"
    description = "4-bit NF4, double quantisation"
    method = "qlora"
    packed = True
    # Half a byte, and of every 64 weights a scale of one byte, of which 256 share one in float32.
    bytes_per_weight = 1 / 2 + 1 / 64 + 4 / (64 * 256)
    # That rounded up, for what kernels read.
    bytes_read = 0.53

    def bytes_of(self, weight: Tensor) -> int:
        return round(weight.numel() * self.bytes_per_weight)

    def unpacking_bytes(self, width: int) -> float:
        return width + self.bytes_read

    def settings(self, dtype: str) -> dict[str, Any]:
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype,
        }

    def reads(self, stored: Mapping[str, Any]) -> bool:
        # With or without double quantisation.
        return bool(stored.get("load_in_4bit")) and stored.get("bnb_4bit_quant_type") == "nf4"

    def settle(self, model: nn.Module, dtype: torch.dtype) -> None:
        from bitsandbytes.nn import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit):
                # A checkpoint stored quantised brings its own compute dtype, which need not suit this hardware.
                module.compute_dtype = dtype
                module.compute_type_is_set = True
                # On CPUs with AVX512-BF16 the first forward pass in eval mode packs the weights for a bfloat16 kernel,
                # for good. It has no backward pass: every step after a validation would lose most of its gradient, in
                # silence. (bitsandbytes 0.50; to go once that kernel can train.)
                module.support_avx512bf16_for_cpu = False

    def holds(self, layer: nn.Module) -> bool:
        # FP4 layers, which no recipe loads, are read by the same calls.
        return _quant_state(layer) is not None

    def dense(self, layer: nn.Linear) -> Tensor:
        # In the dtype that the weight was quantised from.
        from bitsandbytes.functional import dequantize_4bit

        weight: Tensor = dequantize_4bit(layer.weight.data, _quant_state(layer))
        return weight

    def joined(self, layers: Sequence[nn.Linear]) -> PackedWeights | None:
        # For NF4 layers on a GPU that were quantised alike.
        from medtune.model.kernels import has_triton

        states = [_quant_state(layer) for layer in layers]
        if not all(layer.weight.is_cuda for layer in layers) or not has_triton():
            return None
        kinds = {(s.quant_type, s.dtype, s.blocksize, s.nested, s.nested and s.state2.blocksize) for s in states}
        if len(kinds) > 1 or states[0].quant_type != "nf4":
            return None
        from medtune.model.kernels.gpu import PackedWeights

        return PackedWeights([layer.weight.data for layer in layers], states)


NF4, PLAIN = _NF4(), StorageFormat()
# By the name that `model.quantization` gives.
FORMATS: Mapping[str, StorageFormat] = {found.name: found for found in (NF4, PLAIN)}


def format_of(layer: nn.Module) -> StorageFormat:
    """The format that the weight of `layer` is in; plain for a module without a weight."""
    return next((found for found in FORMATS.values() if found.packed and found.holds(layer)), PLAIN)


def is_packed(layer: nn.Module) -> bool:
    """Whether the weight of `layer` has to be dequantised before it is multiplied."""
    return format_of(layer).packed


def packed_layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of `model` whose weights are packed."""
    from torch import nn

    return [module for module in model.modules() if isinstance(module, nn.Linear) and is_packed(module)]


def dequantized_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """What the packed weights of `model` take once they are dequantised to `dtype`."""
    return sum(layer.in_features * layer.out_features * dtype.itemsize for layer in packed_layers(model))


@dataclass(frozen=True)
class _Quantized:
    quantization_config: dict[str, Any] | None = None


def stored_quantization(path: Path) -> Mapping[str, Any] | None:
    """How the weights in the folder `path` are quantised, as its config.json says; None if they are not.

    Raises ModelError if that file cannot be used.
    """
    try:
        stored: _Quantized = check_type(_Quantized, read_mapping(path / "config.json"))
        return stored.quantization_config
    except DamagedError as error:
        raise ModelError(path, f"its config.json cannot be used ({error})") from None


def check_quantization(path: Path, section: ModelSection) -> None:
    """Raises ModelError if the weights in `path` are stored in a form that `model.quantization` cannot use."""
    stored = stored_quantization(path)
    if stored is None or FORMATS[section.quantization].reads(stored):
        return
    other = next((found.name for found in FORMATS.values() if found.reads(stored)), None)
    if other is None:
        reason = "whose layers medtune cannot dequantise for a backward pass: it trains on NF4 and on 16-bit weights"
        fix: tuple[object, ...] = ("give the 16-bit model",)
    else:
        reason = f"which model.quantization: {section.quantization} cannot use"
        fix = ("give ", Option("set", f"model.quantization={other}"), ", or give the 16-bit model")
    raise ModelError(section.base, f"its weights are stored as {_stored_kind(stored)}, {reason}", fix)


def _stored_kind(stored: Mapping[str, Any]) -> str:
    """What `quantization_config` says, in a few words: its method, and of bitsandbytes' which of them."""
    method = one_line(str(stored.get("quant_method", "quantised")))
    if stored.get("load_in_8bit"):
        return f"{method} (8 bit)"
    kind = stored.get("bnb_4bit_quant_type", "fp4") if stored.get("load_in_4bit") else None
    return f"{method} ({one_line(str(kind)).upper()})" if kind else method


def loading_options(path: Path, section: ModelSection, dtype: str) -> dict[str, Any]:
    """What `from_pretrained` is given so that the weights in `path` come in the format that `section` names.

    Raises ModelError if they are stored in a form that it cannot use.
    """
    check_quantization(path, section)
    config = FORMATS[section.quantization].loading_config(dtype)
    return {} if config is None or stored_quantization(path) is not None else {"quantization_config": config}


def _quant_state(layer: nn.Module) -> Any:
    return getattr(getattr(layer, "weight", None), "quant_state", None)
