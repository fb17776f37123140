"""A training step planned for a GPU that need not be here, from a model's configuration: no weights are read."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from medtune.config.schema import Config
from medtune.errors import ModelError
from medtune.model.adapter_fit import fit_adapter, match_vocabulary
from medtune.model.adapters import attach_new_adapter, lift_adapter, resolve_adapter
from medtune.model.answer_loss import can_share_head
from medtune.model.attention import varlen_fits
from medtune.model.loading import model_without_weights, prepare_for_training
from medtune.model.packing import filled_up
from medtune.model.quantization import FORMATS, StorageFormat
from medtune.model.sharding import shared_bytes
from medtune.model.shared_head import rows_of_slice
from medtune.runtime.gpus import DescribedGpu
from medtune.runtime.hardware import torch_dtype
from medtune.training.arguments import optimizer_names
from medtune.training.plan.choosing import MARGIN, REACHED, plan_training, work_per_token
from medtune.training.plan.machines import HOST_SHARE
from medtune.training.plan.peaks import GIB, Machine, ModelShape, PeakParts, TrainingPlan, peak_parts
from medtune.training.plan.shapes import head_size, is_base_linear, shape_of

# Host memory of the smallest machines that GPUs come with in notebooks.
HOST_GIB = 12
# The share of the datasheet's operations that whole steps of LLaMA-3-8B's shape reach: 17,534 tokens a second on an
# H200, weights dequantised, nothing computed again (docs/performance.md). Matrix products alone reach more.
REACHED_BY_STEPS = 0.53


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """What a loaded model takes on the device, in bytes. `packed` counts the weights in it that are packed.

    `packed_bytes` are what these take, `largest_weight` the bytes of the largest one before it is packed.
    """

    layers: int
    embeddings: int
    adapters: int
    packed: int
    packed_bytes: int
    largest_weight: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.layers + self.embeddings + self.adapters


@dataclass(frozen=True, slots=True)
class DescribedModel:
    """A PeftModel without weights, and what it takes once it is loaded; `config` is transformers' own.

    So many `processes` share out its packed weights.
    """

    config: Any
    storage: StorageFormat
    shape: ModelShape
    size: ModelBytes
    dtype: str
    processes: int = 1


@dataclass(frozen=True, slots=True)
class StepForecast:
    """The plan for a GPU, its peak part by part, and tokens a second, None where the GPU's rate is not known."""

    plan: TrainingPlan
    parts: PeakParts
    tokens_per_second: float | None


def describe_model(config: Config, path: Path, gpu: DescribedGpu, dtype: str, *, processes: int = 1) -> DescribedModel:
    """The model of config.json in `path` with its adapter, as it would be loaded on `gpu`.

    Several `processes` share out its packed weights, and this is what one of them holds. Raises ModelError.
    """
    model = _model_of(config, path, dtype)
    head, storage = model.get_output_embeddings(), FORMATS[config.model.quantization]

    def is_packed(module: nn.Module) -> bool:
        return storage.packed and module is not head and is_base_linear(module)

    wanted = torch_dtype(dtype)
    spreads = not varlen_fits(gpu.capability, wanted, head_size(model.config.get_text_config()))
    shape = shape_of(model, config, wanted, spreads=spreads, on_gpu=True, is_packed=is_packed)
    packed = [module for module in model.modules() if isinstance(module, nn.Linear) and is_packed(module)]
    described = DescribedModel(model.config, storage, shape, _bytes_of(model, packed, storage), dtype)
    if processes == 1:
        return described
    if not shape.fused:
        raise ModelError(config.model.base, "its layers cannot be shared out", "set training.weights to auto")
    in_host = config.training.embeddings != "device" and shape.embedding_bytes > 0
    return _shared(described, processes, in_host=in_host, head_slices=can_share_head(model))


def _model_of(config: Config, path: Path, dtype: str) -> Any:
    """The model with its adapter, without weights. A new adapter's is kept: plans for several GPUs ask again."""
    file = path / "config.json"
    if config.model.adapter is not None or not file.is_file():
        return _make_model(config, path, dtype)
    return _kept_model(config.model_dump_json(), path, dtype, file.read_bytes())


def _make_model(config: Config, path: Path, dtype: str) -> Any:
    model = model_without_weights(path, dtype, config.model.base)
    model.requires_grad_(False)
    return _attach(prepare_for_training(model, config.model.kbit_preparation), config)


@lru_cache(maxsize=2)
def _kept_model(settings: str, path: Path, dtype: str, shape: bytes) -> Any:
    del shape  # the file's content, which tells a model from another that takes its place
    return _make_model(Config.model_validate_json(settings), path, dtype)


def _shared(whole: DescribedModel, processes: int, *, in_host: bool, head_slices: bool) -> DescribedModel:
    """The model as one of `processes` holds it: as `load_in_shards` does."""
    size, shape = whole.size, whole.shape
    packed = round(size.packed_bytes / shape.layers)
    layers = size.layers - size.packed_bytes + shared_bytes(packed, shape.layers, processes)
    embeddings = size.embeddings - (shape.embedding_bytes if in_host else 0)
    if head_slices:
        row = shape.hidden * shape.item
        # Filled up to whole slices.
        slice_bytes = rows_of_slice(packed, row, processes) * row
        embeddings += filled_up(shape.head_parameters * shape.item, slice_bytes) // processes
        embeddings -= shape.head_parameters * shape.item
    return replace(
        whole,
        size=replace(size, layers=layers, embeddings=embeddings),
        shape=replace(
            shape,
            embedding_bytes=0 if in_host else shape.embedding_bytes,
            embeddings_wait=in_host,
            head_slices=head_slices,
        ),
        processes=processes,
    )


def _attach(model: Any, config: Config) -> Any:
    if config.model.adapter is None:
        return attach_new_adapter(model, config.lora, config.seed, shapes_only=True)
    from peft import LoraConfig, get_peft_model

    path = resolve_adapter(config.model.adapter)
    fit = fit_adapter(model, path)
    match_vocabulary(model, path, fit.rows)
    return lift_adapter(get_peft_model(model, LoraConfig(**fit.settings)))


def _bytes_of(model: Any, packed: list[nn.Linear], storage: StorageFormat) -> ModelBytes:
    ends = (model.get_input_embeddings().weight, getattr(model.get_output_embeddings(), "weight", None))
    ends_by_id = {id(weight): weight for weight in ends if weight is not None}
    packed_ids = {id(module.weight) for module in packed}
    layers = adapters = 0
    for parameter in model.parameters():
        size = parameter.numel() * parameter.element_size()
        if parameter.requires_grad:
            adapters += size
        elif id(parameter) in packed_ids:
            layers += storage.bytes_of(parameter)
        elif id(parameter) not in ends_by_id:
            layers += size
    embeddings = sum(weight.numel() * weight.element_size() for weight in ends_by_id.values())
    largest = max(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    counts = [(module.weight.numel(), storage.bytes_of(module.weight)) for module in packed]
    weights, their_bytes = (sum(numbers) for numbers in zip(*counts, strict=True)) if counts else (0, 0)
    return ModelBytes(layers, embeddings, adapters, weights, their_bytes, largest)


def described_machine(model: DescribedModel, gpu: DescribedGpu, config: Config) -> Machine:
    """What training may take on `gpu`, by the rules for a GPU that is here."""
    training, usable = config.training, gpu.memory_gib * GIB
    limit = model.size.total + max(0.0, usable - model.size.total) * MARGIN
    if training.memory_gib is not None:
        limit = min(limit, training.memory_gib * GIB)
    host = training.host_memory_gib or HOST_GIB * HOST_SHARE / model.processes
    return Machine(model.size.total, int(min(limit, usable)), int(host * GIB), gpu.operations)


def forecast_step(
    model: DescribedModel,
    gpu: DescribedGpu,
    config: Config,
    *,
    largest_step: int,
    longest_row: int,
    must_fit: bool = True,
) -> StepForecast:
    """The plan that training would choose on `gpu`. Raises ModelError if nothing fits and it `must_fit`."""
    machine, training = described_machine(model, gpu, config), config.training
    if model.processes > 1:
        training = training.model_copy(update={"weights": "sharded"})
    plan = plan_training(
        model.shape,
        machine,
        training,
        largest_step=largest_step,
        longest_row=longest_row,
        optimizers=optimizer_names(config.training.optimizer, "cuda"),
        must_fit=must_fit,
    )
    widest = filled_up(max(plan.tokens_per_micro_batch, longest_row))
    parts = peak_parts(model.shape, machine, replace(plan, tokens_per_micro_batch=widest))
    return StepForecast(plan, parts, tokens_per_second(model.shape, plan, gpu.operations))


def tokens_per_second(shape: ModelShape, plan: TrainingPlan, operations: float | None) -> float | None:
    """An estimate from the datasheet's `operations` a second, of which whole steps reach `REACHED_BY_STEPS`."""
    if operations is None:
        return None
    reached = operations * REACHED_BY_STEPS
    # The plan's own measure takes products to reach `REACHED` of what it is given.
    return reached / work_per_token(shape, plan, reached / REACHED)
