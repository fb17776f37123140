"""Storage formats of base weights: the one place that knows how each is packed, loaded, dequantised and named.

Loading, fused layers, plans, forecasts, the doctor and model cards ask a `StorageFormat`. A new format is a subclass
here with a place in `FORMATS`, and its name in `model.quantization` of the configuration's schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from medtune.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from medtune.model.kernels.gpu import PackedWeights

# How a plan holds packed weights: as they are stored, for which the first format gave the name, or dequantised once.
AS_STORED: Final = "nf4"
DEQUANTIZED: Final = "dequantized"
# What llm-compressor writes, whichever of FP8, AWQ, GPTQ and others it used.
_COMPRESSED: Final = "compressed-tensors"


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

    def options_for_stored(self, path: Path, name: str) -> dict[str, Any]:
        """As `loading_options`, for weights in `path` that it `reads`; messages call the model `name`."""
        return {}

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


class _Plain(StorageFormat):
    """16 or 32 bit; what compressed-tensors has packed for other programs comes dequantised."""

    def reads(self, stored: Mapping[str, Any]) -> bool:
        return stored.get("quant_method") == _COMPRESSED

    def options_for_stored(self, path: Path, name: str) -> dict[str, Any]:
        if find_spec("compressed_tensors") is None:
            problem = f"its weights are stored as {_COMPRESSED}, whose package is not installed"
            raise ModelError(name, problem, 'pip install "medtune[export]"')
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        config.quantization_config = {**config.quantization_config, "dequantize": True}
        return {"config": config}


NF4, PLAIN = _NF4(), _Plain()
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


def _quant_state(layer: nn.Module) -> Any:
    return getattr(getattr(layer, "weight", None), "quant_state", None)
