"""A model made ready for its plan: fused layers, weights, embeddings and what is computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from medtune.config import Config, TrainingSection
from medtune.hardware import free_bytes, host_free_bytes, matrix_rate, rank, torch_dtype, world_size
from medtune.model.answer_loss import LOGIT_BYTES
from medtune.model.attention import spreads_key_heads
from medtune.model.base_weights import is_4bit, room_for
from medtune.model.decoder_structure import can_fuse_layers, decoder_layers, projection_groups
from medtune.model.fused_adapters import fuse_adapters
from medtune.model.fused_layers import fuse_layers
from medtune.model.host_embeddings import move_embeddings_to_host
from medtune.model.host_store import HostStore
from medtune.model.projections import joined_rank
from medtune.progress import say
from medtune.records import EncodedRow
from medtune.training.arguments import optimizer_names, total_steps
from medtune.training.batching import StepSampler
from medtune.training.memory import GIB, MARGIN, Machine, ModelShape, TrainingPlan, plan_training

# Of the main memory that is available, at most this share becomes page-locked.
HOST_SHARE = 0.6


def prepare_step(
    model: Any,
    rows: Sequence[EncodedRow],
    config: Config,
    *,
    device: str,
    dtype: str,
    plan: TrainingPlan | None = None,
) -> TrainingPlan:
    """Plan the training step of a PeftModel, or take `plan`; say so, and make the model ready for it.

    Raises ModelError.
    """
    if plan is None:
        plan = _plan_step(model, rows, config, device=device, dtype=dtype)
        say(f"training step: {plan.describe()}")
    else:
        say(f"training step, as it began: {plan.describe()}")
    _apply(model, plan, config, device=device, dtype=torch_dtype(dtype))
    return plan


def _plan_step(model: Any, rows: Sequence[EncodedRow], config: Config, *, device: str, dtype: str) -> TrainingPlan:
    shape = model_shape(model, config, torch.device(device), torch_dtype(dtype))
    largest, longest = largest_step(rows, config), max(len(row.input_ids) for row in rows)
    return plan_training(
        shape,
        this_machine(device, config.training),
        config.training,
        largest_step=largest,
        longest_row=longest,
        optimizers=optimizer_names(config.training.optimizer, device),
    )


def this_machine(device: str, training: TrainingSection) -> Machine:
    """What training may take on `device` and of the host: what is free but a margin, or what `training` says."""
    limit_gib, host_gib = training.memory_gib, training.host_memory_gib
    host = int(host_free_bytes() * HOST_SHARE if host_gib is None else host_gib * GIB)
    allocated = 0 if device == "cpu" else int(torch.cuda.memory_allocated(device))
    limit = allocated + int(free_bytes(device) * MARGIN)
    if limit_gib is not None and device != "cpu":
        limit = min(limit, int(limit_gib * GIB))
    return Machine(allocated, limit, host, matrix_rate(device), offloads=device != "cpu")


def largest_step(rows: Sequence[EncodedRow], config: Config) -> int:
    """The most tokens that one optimiser step holds in this process."""
    training = config.training
    sampler = StepSampler(
        len(rows), training.effective_batch_rows, total_steps(config, len(rows)), config.seed, rank(), world_size()
    )
    return max(sum(len(rows[i].input_ids) for i in step) for step in sampler)


def model_shape(model: Any, config: Config, device: torch.device, dtype: torch.dtype) -> ModelShape:
    """The shape of a PeftModel for training on `device`, read from its modules."""
    spreads = spreads_key_heads(device, dtype, head_size(model.config.get_text_config()))
    on_gpu = model.get_input_embeddings().weight.is_cuda
    return shape_of(model, config, dtype, spreads=spreads, on_gpu=on_gpu, is_packed=is_4bit)


def head_size(text: Any) -> int:
    """Elements of an attention head, from a text model's configuration."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def shape_of(
    model: Any,
    config: Config,
    dtype: torch.dtype,
    *,
    spreads: bool,
    on_gpu: bool,
    is_packed: Callable[[nn.Module], bool],
) -> ModelShape:
    """The shape of a PeftModel, which need not hold any weights.

    `spreads` says whether attention keeps keys and values for every query head, `on_gpu` whether embeddings may leave
    for host memory, `is_packed` which linear layers are in 4 bit.
    """
    text = model.config.get_text_config()
    layers = decoder_layers(model)
    linear = [module for module in layers[0].modules() if is_base_linear(module)] if layers else []
    heads, head_dim = text.num_attention_heads, head_size(text)
    shared = getattr(text, "num_key_value_heads", None) or heads
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    tied = head is not None and head.weight is embeddings.weight
    # A class of its own may scale what it looks up.
    is_movable = type(embeddings) is nn.Embedding and on_gpu and not tied
    embedding_bytes = embeddings.weight.numel() * embeddings.weight.element_size() if is_movable else 0
    counts = [module.in_features * module.out_features for module in linear]
    fused = _fuses_layers(model, config)
    groups = projection_groups(layers[0]) if fused else ()
    rooms = [_room_parameters(group) for group in groups]
    return ModelShape(
        layers=len(layers) or text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", 4 * text.hidden_size),
        query_key_value=(heads + 2 * shared) * head_dim,
        attention=heads * head_dim,
        spread=3 * heads * head_dim if spreads else 0,
        item=dtype.itemsize,
        layer_parameters=sum(counts) or 12 * text.hidden_size**2,
        packed_layer_parameters=sum(n for module, n in zip(linear, counts, strict=True) if is_packed(module)),
        largest_group=2 * max(counts, default=0) + max(rooms, default=0),
        room_parameters=sum(rooms),
        gate_up_room=room_for(joined_rank(groups[2])) if fused else 0,
        head_parameters=text.vocab_size * text.hidden_size,
        adapter_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        embedding_bytes=embedding_bytes,
        logit_bytes=LOGIT_BYTES,
        fused=fused,
    )


def _room_parameters(group: Sequence[Any]) -> int:
    """What `BaseWeights` holds for these projections beside their weights."""
    rank, inputs = joined_rank(group), int(group[0].in_features)
    outputs = sum(int(layer.out_features) for layer in group)
    return (outputs + rank) * (inputs + room_for(rank)) - outputs * inputs


def _fuses_layers(model: Any, config: Config) -> bool:
    # PEFT's own preparation lifts norms and embeddings to float32 and leaves the products to autocast.
    training = config.training
    return training.fused_adapters and config.model.kbit_preparation == "lean" and can_fuse_layers(model)


def is_base_linear(module: nn.Module) -> bool:
    """Whether `module` is a frozen linear layer of the base model."""
    # PEFT's two matrices are linear layers as well; they have few rows or columns.
    return isinstance(module, nn.Linear) and not getattr(module, "weight", torch.empty(0)).requires_grad


def _apply(model: Any, plan: TrainingPlan, config: Config, *, device: str, dtype: torch.dtype) -> None:
    keep = dtype if plan.weights == "dequantized" else None
    if plan.embeddings == "host":
        move_embeddings_to_host(model)
    if plan.fused:
        store = HostStore(torch.device(device)) if plan.offloaded_layers else None
        layers = fuse_layers(model, keep_dequantized=keep)
        # The last layers come first in the backward pass: what they keep is gone before the others compute again, and
        # the first layers' inputs wait longest.
        for number, layer in enumerate(layers[: plan.checkpointed_layers]):
            layer.recompute, layer.store = True, store if number < plan.offloaded_layers else None
        say(f"adapters: fused into {len(layers)} decoder layers")
    elif config.training.fused_adapters:
        say(f"adapters: {fuse_adapters(model, keep_dequantized=keep)} projections fused, layer by layer as they are")
