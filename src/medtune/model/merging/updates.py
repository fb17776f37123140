"""What a stored adapter adds to the weights of its base, and which of them it replaces."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtune.errors import ModelError
from medtune.model.adapter_files import WEIGHTS_NAME, read_adapter_config, require_fitting_weights
from medtune.model.tensor_files import StoredTensor, stored_in
from medtune.runtime.terminal import one_line


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

    def rows_of(self) -> Callable[[int, int], Tensor]:
        """A function that computes rows of the update in float32, in PEFT's order of operations."""
        a, b = self.a.read().float(), self.b.read().float()

        def rows(start: int, stop: int) -> Tensor:
            product = (b @ a[:, start:stop]).T if self.transposed else b[start:stop] @ a
            return product.mul_(self.scaling)

        return rows


def adapter_parts(model: Any, adapter: Path) -> tuple[dict[str, LowRankUpdate], dict[str, StoredTensor]]:
    """What an adapter adds to which weights of `model`, and which of them it replaces. Raises ModelError.

    PEFT itself decides which layers have an adapter and how it is scaled: it interprets patterns of names.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    config = read_adapter_config(adapter)
    for setting in ("use_dora", "lora_bias"):
        if config[setting]:
            raise ModelError(adapter, f"an adapter with {setting} is not merged here", "serve it beside its base")
    try:
        with warnings.catch_warnings(action="ignore"), torch.device("meta"):
            wrapped = get_peft_model(model, LoraConfig(**config), low_cpu_mem_usage=True)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(adapter, f"this adapter does not fit the base model ({reason})") from None
    require_fitting_weights(wrapped, adapter)
    stored = stored_in(adapter / WEIGHTS_NAME)
    weights = {key.removeprefix("base_model.model."): tensor for key, tensor in stored.items()}
    updates = {}
    for path, layer in wrapped.named_modules():
        if isinstance(layer, LoraLayer) and "default" in layer.scaling:
            name = path.removeprefix("base_model.model.")
            is_embedding = f"{name}.lora_embedding_A" in weights
            matrix = "lora_embedding_{}" if is_embedding else "lora_{}.weight"
            a, b = (weights.pop(f"{name}.{matrix.format(side)}") for side in "AB")
            if len(a.shape) != 2:
                raise ModelError(adapter, f"{one_line(name)} is no linear layer", "serve this adapter beside its base")
            transposed = is_embedding or bool(getattr(layer, "fan_in_fan_out", False))
            updates[f"{name}.weight"] = LowRankUpdate(a, b, float(layer.scaling["default"]), transposed)
    return updates, {key.replace(".base_layer.", "."): tensor for key, tensor in weights.items()}
