"""What a plan needs to know of a model, read from its modules; none of its weights are read."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from medtune.config.schema import Config
from medtune.model.answer_loss import LOGIT_BYTES, is_frozen_weight
from medtune.model.attention import spreads_key_heads
from medtune.model.base_weights import ROOM_MULTIPLE
from medtune.model.decoder_structure import can_fuse_layers, decoder_layers, projection_groups
from medtune.model.fused.projections import is_lora, is_plain_lora, joined_rank
from medtune.model.packing import filled_up
from medtune.model.quantization import FORMATS, is_packed
from medtune.model.shared_head import SharedHead
from medtune.training.plan.peaks import ModelShape


def model_shape(model: Any, config: Config, device: torch.device, dtype: torch.dtype) -> ModelShape:
    """The shape of a PeftModel for training on `device`, read from its modules."""
    spreads = spreads_key_heads(device, dtype, head_size(model.config.get_text_config()))
    on_gpu = model.get_input_embeddings().weight.is_cuda
    return shape_of(model, config, dtype, spreads=spreads, on_gpu=on_gpu, is_packed=is_packed)


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
    for host memory, `is_packed` which linear layers are packed.
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
    # PEFT's own preparation lifts norms and embeddings to float32 and leaves the products to autocast.
    lean = config.training.fused_adapters and config.model.kbit_preparation == "lean"
    # Embeddings that are trained are float32, and fused layers compute in the dtype that their input has.
    fused = lean and can_fuse_layers(model) and (dtype == torch.float32 or not embeddings.weight.requires_grad)
    # Where layers have adapters of different ranks, the widest counts for all.
    groups = max(map(projection_groups, layers), key=_joined_ranks) if fused else ()
    rooms = [_room_parameters(group) for group in groups]
    adapted = [module for module in model.modules() if is_lora(module)]
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
        unpacking_bytes=FORMATS[config.model.quantization].unpacking_bytes(dtype.itemsize),
        largest_group=2 * max(counts, default=0) + max(rooms, default=0),
        room_parameters=sum(rooms),
        gate_up_room=filled_up(joined_rank(groups[2]), ROOM_MULTIPLE) if fused else 0,
        head_parameters=text.vocab_size * text.hidden_size,
        adapter_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        embedding_bytes=embedding_bytes,
        logit_bytes=LOGIT_BYTES,
        fused=fused,
        embeddings_wait=embeddings.weight.shape[1] == 0,
        head_slices=isinstance(head, SharedHead),
        by_peft=not all(map(is_plain_lora, adapted)),
        kept_by_adapters=max(map(_kept_by_dora, layers), default=0),
        adapter_bytes=max(map(_dora_bytes, adapted), default=0),
        trained_head=head is not None and not is_frozen_weight(head),
    )


def _joined_ranks(groups: Sequence[Any]) -> int:
    return sum(map(joined_rank, groups))


def _kept_by_dora(layer: Any) -> int:
    """Elements that PEFT's DoRA keeps of a token: of every projection, what base and adapter gave and their sum."""
    return sum(3 * module.out_features for module in layer.modules() if is_lora(module) and module.lora_variant)


def _dora_bytes(layer: Any) -> int:
    """The most that PEFT's DoRA takes at once for the norm of a layer's weight, in float32.

    An identity matrix, and of the weight: itself, the adapter's part, that scaled, and their sum.
    """
    if not layer.lora_variant:
        return 0
    inputs, outputs = int(layer.in_features), int(layer.out_features)
    return 4 * (inputs**2 + 4 * inputs * outputs)


def _room_parameters(group: Sequence[Any]) -> int:
    """What `BaseWeights` holds for these projections beside their weights."""
    rank, inputs = joined_rank(group), int(group[0].in_features)
    outputs = sum(int(layer.out_features) for layer in group)
    return (outputs + rank) * (inputs + filled_up(rank, ROOM_MULTIPLE)) - outputs * inputs


def is_base_linear(module: nn.Module) -> bool:
    """Whether `module` is a frozen linear layer of the base model."""
    # PEFT's two matrices are linear layers as well; they have few rows or columns.
    return isinstance(module, nn.Linear) and not module.weight.requires_grad
