"""What a stored adapter adds to the weights of its base, and which of them it replaces."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from medtune.errors import ModelError
from medtune.model.adapter_files import WEIGHTS_NAME, require_fitting_weights
from medtune.model.adapter_fit import AdapterFit
from medtune.model.tensor_files import StoredTensor, stored_in
from medtune.runtime.terminal import one_line

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class LowRankUpdate:
    """`scaling` · B A, (outputs, inputs), or its transpose for layers that keep their weights that way round.

    With a `magnitude`, as DoRA has it, each row of the sum is then brought to that length.
    """

    a: StoredTensor
    b: StoredTensor
    scaling: float
    transposed: bool
    magnitude: StoredTensor | None = None

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

    def merger(self) -> Callable[[Tensor, int], Tensor]:
        """A function that gives rows of the merged weight from those of the base, float32, the first being `start`."""
        rows = self.rows_of()
        lengths = None if self.magnitude is None else self.magnitude.read().float().flatten()

        def merge(block: Tensor, start: int) -> Tensor:
            stop = start + len(block)
            merged = block.add_(rows(start, stop))
            if lengths is None:
                return merged
            factor = lengths[start:stop] / torch.linalg.norm(merged, dim=1)
            return merged.mul_(factor.unsqueeze(1))

        return merge


@dataclass(frozen=True, slots=True)
class TokenUpdate:
    """Rows of the embeddings of shape `shape` that the adapter trained, in place of the base's at `tokens`."""

    tokens: tuple[int, ...]
    rows: StoredTensor
    shape: tuple[int, int]

    def merger(self) -> Callable[[Tensor, int], Tensor]:
        """As a LowRankUpdate's."""
        trained = self.rows.read().float()

        def merge(block: Tensor, start: int) -> Tensor:
            for place, token in enumerate(self.tokens):
                if start <= token < start + len(block):
                    block[token - start] = trained[place]
            return block

        return merge


Update: TypeAlias = LowRankUpdate | TokenUpdate


def adapter_parts(model: Any, adapter: Path, fit: AdapterFit) -> tuple[dict[str, Update], dict[str, StoredTensor]]:
    """What an adapter adds to which weights of `model`, and which of them it replaces. Raises ModelError.

    PEFT itself decides which layers have an adapter and how it is scaled: it interprets patterns of names.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import TrainableTokensWrapper

    if fit.settings["lora_bias"]:
        raise ModelError(adapter, "an adapter with lora_bias is not merged here", "serve it beside its base")
    try:
        with warnings.catch_warnings(action="ignore"), torch.device("meta"):
            wrapped = get_peft_model(model, LoraConfig(**fit.settings), low_cpu_mem_usage=True)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(adapter, f"this adapter does not fit the base model ({reason})") from None
    require_fitting_weights(wrapped, adapter, fit.renamed)
    stored = stored_in(adapter / WEIGHTS_NAME)
    weights = {fit.renamed.get(key, key).removeprefix(_PREFIX): tensor for key, tensor in stored.items()}
    updates: dict[str, Update] = {}
    for path, layer in wrapped.named_modules():
        name = path.removeprefix(_PREFIX)
        if isinstance(layer, LoraLayer) and "default" in layer.scaling:
            updates[f"{name}.weight"] = _low_rank(name, layer, weights, adapter)
        elif isinstance(layer, TrainableTokensWrapper):
            rows = weights.pop(f"{name}.token_adapter.trainable_tokens_delta", None)
            if rows is not None:
                tokens = tuple(layer.token_adapter.token_indices["default"])
                updates[f"{name}.weight"] = TokenUpdate(tokens, rows, tuple(layer.original_module.weight.shape))
    return updates, {key.replace(".base_layer.", "."): tensor for key, tensor in weights.items()}


def _low_rank(name: str, layer: Any, weights: dict[str, StoredTensor], adapter: Path) -> LowRankUpdate:
    """The update of one layer, its tensors taken out of `weights`. Raises ModelError."""
    is_embedding = f"{name}.lora_embedding_A" in weights
    matrix = "lora_embedding_{}" if is_embedding else "lora_{}.weight"
    a, b = (weights.pop(f"{name}.{matrix.format(side)}") for side in "AB")
    if len(a.shape) != 2:
        raise ModelError(adapter, f"{one_line(name)} is no linear layer", "serve this adapter beside its base")
    transposed = is_embedding or bool(getattr(layer, "fan_in_fan_out", False))
    magnitude = weights.pop(f"{name}.lora_magnitude_vector", None)
    if magnitude is not None and transposed:
        problem = f"{one_line(name)} has a magnitude for each column of a weight that is kept row by row"
        raise ModelError(adapter, f"DoRA is merged into linear layers alone, and {problem}", "serve it beside its base")
    return LowRankUpdate(a, b, float(layer.scaling["default"]), transposed, magnitude)
