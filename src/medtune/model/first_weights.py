"""The settings and first weights of a new adapter: plain, rsLoRA and DoRA, and starts that PEFT takes from the base.

PiSSA changes the base's weights while it trains. What is saved is the difference to its start, of twice the rank, for
the untouched base.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medtune.config.training import LoraSection
from medtune.errors import ModelError
from medtune.model.fused.projections import is_lora
from medtune.model.quantization import format_of, is_packed
from medtune.model.tensor_files import stored_tensors

_INIT: dict[str, bool | str] = {"default": True, "loftq": True}
# For the randomised decomposition (Halko et al. 2011): what is lost has singular values that fall slowly.
OVERSAMPLING, POWER_ITERATIONS = 16, 4


def peft_settings(lora: LoraSection, *, shapes_only: bool = False) -> Any:
    """PEFT's configuration of a new adapter; with `shapes_only` for a model without weights."""
    from peft import LoraConfig, TaskType

    init = True if shapes_only else _INIT.get(lora.init, lora.init)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        layers_to_transform=None if lora.layers is None else list(lora.layers),
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        init_lora_weights=init,
        modules_to_save=list(lora.modules_to_save) or None,
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )


def correct_quantization(model: Any, base: Path) -> None:
    """LoftQ (Li et al. 2023) of one step: give each adapter the part of the weights in `base` that packing lost.

    PEFT's `replace_lora_weights_loftq` takes the same part, but needs CUDA, whole decompositions, and layers that do
    not scale their adapters. Raises ModelError if `base` holds no 16-bit weights.
    """
    stored, prefix = stored_tensors(base), f"{model.get_base_model().base_model_prefix}."
    for path, layer in model.named_modules():
        if not (is_lora(layer) and is_packed(layer.get_base_layer())):
            continue
        name = f"{path.removeprefix('base_model.model.')}.weight"
        whole = next((stored[key] for key in (name, name.removeprefix(prefix)) if key in stored), None)
        if whole is None or not whole.dtype.is_floating_point:
            problem = "needs the 16-bit weights that the base was quantised from"
            raise ModelError("lora.init loftq", problem, "give such a base in model.base, or another lora.init")
        packed = layer.get_base_layer()
        with torch.no_grad():
            dense = format_of(packed).dense(packed).float()
            lost = whole.read().to(dense.device).float() - dense
            rank = layer.r["default"]
            u, s, v = torch.svd_lowrank(lost, q=min(rank + OVERSAMPLING, *lost.shape), niter=POWER_ITERATIONS)
            root = (s[:rank] / layer.scaling["default"]).sqrt()
            layer.lora_A["default"].weight.copy_((v[:, :rank] * root).T)
            layer.lora_B["default"].weight.copy_(u[:, :rank] * root)


def first_weights(model: Any, lora: LoraSection) -> dict[str, Tensor] | None:
    """Copies, on the host, of the first weights of an adapter that changed its base; None for any other start."""
    from peft import get_peft_model_state_dict

    if not lora.init.startswith("pissa"):
        return None
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    # The copies that autograd follows are not these, and a fused layer may move what the parameters point to.
    return {name: weight.detach().cpu().clone().contiguous() for name, weight in state.items()}


def save_adapter(model: Any, folder: Path, start: dict[str, Tensor] | None) -> None:
    """Save the adapter of `model` in PEFT's format, converted for the untouched base if it has a `start`."""
    if start is None:
        model.save_pretrained(folder)
        return
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as temporary:
        first = Path(temporary, "start")
        first.mkdir()
        save_file(start, first / SAFETENSORS_WEIGHTS_NAME)
        # PEFT warns of a second adapter beside one that changed the base; it is this one's own start.
        with warnings.catch_warnings(action="ignore"):
            model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(first))
