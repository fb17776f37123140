"""A LoRA adapter as a GGUF file, which llama.cpp adds to the base's file as it loads that."""

from collections import Counter
from pathlib import Path
from typing import Any

from medtune.errors import Command, ModelError
from medtune.model.adapter_fit import fit_adapter
from medtune.model.loading import model_without_weights
from medtune.model.merging.updates import LowRankUpdate, adapter_parts
from medtune.publishing.export.gguf_architectures import architecture_of
from medtune.publishing.export.gguf_files import Label, model_config, write_file
from medtune.publishing.export.gguf_tensors import GgufTensor, heads_of, name_map
from medtune.storage.writing import replacing_file

_MERGE = (Command("merge"), " it, and export that")


def write_adapter(base: Path, adapter: Path, file: Path, label: Label) -> None:
    """Write the adapter in the folder `adapter`, trained on the model in `base`, to `file`, in float32.

    llama.cpp scales every layer by `adapter.lora.alpha` over its rank; what a layer has beyond that (rank-stabilised
    scales, patterns of rank and alpha) is multiplied into its B. Raises ModelError for what is no plain LoRA.
    """
    from gguf import GGUFWriter, Keys

    config = model_config(base)
    architecture = architecture_of(config)
    updates, alpha = _updates(base, adapter)
    named = name_map(architecture, config)
    tensors: list[GgufTensor] = []
    for name, update in updates.items():
        scale = update.scaling * update.a.shape[0] / alpha
        heads = heads_of(name, config, architecture)
        tensors += [
            _tensor(f"{named(name)}.lora_a", update.a),
            _tensor(f"{named(name)}.lora_b", update.b, heads, scale),
        ]
    with replacing_file(file) as temporary:
        writer = GGUFWriter(temporary, architecture.name)
        label.write(writer)
        writer.add_type("adapter")
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
        write_file(writer, temporary, tensors)


def _updates(base: Path, adapter: Path) -> tuple[dict[str, LowRankUpdate], float]:
    """What the adapter adds to which weight, and the alpha that most of its layers have."""
    model = model_without_weights(base, "float32", str(base))
    updates, replaced = adapter_parts(model, adapter, fit_adapter(model, adapter))
    plain: dict[str, LowRankUpdate] = {}
    for name, update in updates.items():
        if not isinstance(update, LowRankUpdate) or update.magnitude is not None or update.transposed:
            raise ModelError(adapter, f"{name} has more than a plain LoRA, which a GGUF adapter cannot hold", _MERGE)
        plain[name] = update
    if replaced:
        problem = f"{min(replaced)} was trained whole, which a GGUF adapter cannot hold"
        raise ModelError(adapter, problem, _MERGE)
    ((alpha, _),) = Counter(update.scaling * update.a.shape[0] for update in plain.values()).most_common(1)
    return plain, alpha


def _tensor(name: str, source: Any, heads: int = 0, scale: float = 1.0) -> GgufTensor:
    from gguf import GGMLQuantizationType

    return GgufTensor(name, GGMLQuantizationType.F32, source.shape, source, heads, scale=scale)
