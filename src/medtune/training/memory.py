"""How a step is computed in the memory that is there: predicted peaks, and the fastest plan that fits.

A plan changes neither the rows of a step nor its gradient: tokens per pass, which layers are computed again in the
backward pass, where their inputs wait, whether base weights stay in 4 bit, and where the embeddings sit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal

from medtune.config import TrainingSection
from medtune.errors import ModelError
from medtune.model.fused_layers import FEED_FORWARD_TOKENS
from medtune.model.host_store import LAYERS_AHEAD
from medtune.model.packing import filled_up

GIB = 2**30
# Operations of matrix products that take as long as moving a byte: about 200 on a T4, A100 and H200 alike.
OPERATIONS_PER_BYTE = 200
# A pass of few tokens does not fill the GPU: what its products cost beside their operations, as tokens.
IDLE_TOKENS = 64
# Of the operations a GPU could do, what matrix products of these shapes reach.
REACHED = 0.7
# Seconds that the host takes to launch a layer's forward pass; as much for a backward pass, and for computing again. A
# GPU that is faster waits.
HOST_SECONDS = 0.0022
# Slowdowns assumed for what travels over the bus beside the computation, and for an optimiser that goes through its
# parameters one by one and waits.
HOST_EMBEDDINGS_COST, PAGED_COST = 1.005, 1.05
# Copies out and back pass beside the computation, but share its memory, and cost the host seconds a layer.
OFFLOAD_COST, OFFLOAD_SECONDS = 1.01, 0.0008
# Inputs on the device while they are copied out, or back before they are needed.
_LAYERS_ON_THEIR_WAY = LAYERS_AHEAD + 1
# Of the memory that is free, what training plans with. The rest is for the allocator's gaps between the activations of
# passes of unlike sizes: 0.74 GiB beside 13.71 on an H200.
MARGIN = 0.9


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a plan needs to know of a model. Sizes are elements, `item` bytes each, unless they say bytes.

    `spread` is what attention keeps of a token while its graph is there, beside query, key, value and result; rooms are
    what fused layers hold beside the weights of a layer and beside gate and up, for the adapters.
    """

    layers: int
    hidden: int
    intermediate: int
    query_key_value: int
    attention: int
    spread: int
    item: int
    layer_parameters: int
    packed_layer_parameters: int
    largest_group: int
    room_parameters: int
    gate_up_room: int
    head_parameters: int
    adapter_parameters: int
    embedding_bytes: int
    logit_bytes: int
    fused: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes that the model takes now, that training may reach in all on the device, and that it may page-lock.

    `operations` are dense 16-bit matrix operations a second, or None where the host's part does not matter. `offloads`
    says whether host memory is another memory than the device's.
    """

    allocated: int
    limit: int
    host: int
    operations: float | None = None
    offloads: bool = True


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a step is computed, and the peak that is predicted for it."""

    tokens_per_micro_batch: int
    layers: int
    checkpointed_layers: int
    offloaded_layers: int
    weights: Literal["nf4", "dequantized"]
    embeddings: Literal["device", "host"]
    optimizer: str
    fused: bool
    peak_bytes: int = 0
    limit_bytes: int = 0

    def describe(self) -> str:
        """One line for people."""
        again = {0: "no layer", self.layers: f"all {self.layers} layers"}.get(
            self.checkpointed_layers, f"{self.checkpointed_layers} of {self.layers} layers"
        )
        if self.offloaded_layers:
            those = "" if self.offloaded_layers == self.checkpointed_layers else f"{self.offloaded_layers} "
            from_host = f", {those}from inputs in host memory"
        else:
            from_host = ""
        parts = [
            f"passes of up to {self.tokens_per_micro_batch:,} tokens",
            f"{again} computed again{from_host}",
            f"base weights {'dequantised once' if self.weights == 'dequantized' else 'as they are stored'}",
            f"embeddings {'in host memory' if self.embeddings == 'host' else 'on the device'}",
            f"optimiser {self.optimizer}",
        ]
        if self.peak_bytes:
            parts.append(f"predicted peak {self.peak_bytes / GIB:.1f} of {self.limit_bytes / GIB:.1f} GiB")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class PeakParts:
    """What the device holds at the peak of a step, in bytes.

    `model` is what was there before training, less embeddings that move to the host; `inputs` are those of layers that
    are computed again, `kept` is what the other layers keep; `moment` is what comes and goes at the `widest` moment.
    """

    model: float
    dequantized: float
    gradients: float
    optimizer: float
    inputs: float
    kept: float
    moment: float
    widest: Literal["loss", "layer", "layer computed again"]

    @property
    def total(self) -> int:
        """The peak."""
        steady = self.model + self.dequantized + self.gradients + self.optimizer
        return int(steady + self.inputs + self.kept + self.moment)


def plan_training(
    shape: ModelShape,
    machine: Machine,
    training: TrainingSection,
    *,
    largest_step: int,
    longest_row: int,
    optimizers: Sequence[str],
    must_fit: bool = True,
) -> TrainingPlan:
    """The plan with the least work a token among those that fit; what `training` sets by hand is kept to.

    `largest_step` is the most tokens of one optimiser step, `optimizers` those to choose from, the best first. Raises
    ModelError if nothing fits, with what the smallest plan would take; unless it `must_fit`, that plan comes back.
    """
    work = partial(work_per_token, shape, operations=machine.operations)
    best: TrainingPlan | None = None
    smallest: TrainingPlan | None = None
    for plan in _candidates(shape, machine, training, _pass_sizes(training, largest_step, longest_row), optimizers):
        # A row over the budget gets a pass of its own, and every pass is filled up.
        widest = filled_up(max(plan.tokens_per_micro_batch, longest_row))
        peak = predicted_peak(shape, machine, replace(plan, tokens_per_micro_batch=widest))
        if peak > machine.limit:
            plan, peak = _offloaded(shape, machine, training, plan, widest, peak)
        plan = replace(plan, peak_bytes=peak, limit_bytes=machine.limit)
        if smallest is None or peak < smallest.peak_bytes:
            smallest = plan
        if peak <= machine.limit and (best is None or work(plan) < work(best)):
            best = plan
    if best is None:
        assert smallest is not None
        if not must_fit:
            return smallest
        raise ModelError(
            f"training does not fit: the smallest plan takes {smallest.peak_bytes / GIB:.1f} GiB of "
            f"{machine.limit / GIB:.1f} GiB ({smallest.describe()}); lower training.max_length or lora.rank, or set "
            "training.checkpointing, weights and embeddings to auto"
        )
    return best


def predicted_peak(shape: ModelShape, machine: Machine, plan: TrainingPlan) -> int:
    """Peak bytes on the device: what is there now, gradients and optimiser, kept activations, the widest moment."""
    return peak_parts(shape, machine, plan).total


def peak_parts(shape: ModelShape, machine: Machine, plan: TrainingPlan) -> PeakParts:
    """The predicted peak of passes of `plan.tokens_per_micro_batch` tokens, part by part."""
    tokens, item = plan.tokens_per_micro_batch, shape.item
    dequantized = 0
    if plan.weights == "dequantized":
        dequantized = (shape.packed_layer_parameters + shape.room_parameters) * shape.layers * item
    elif not shape.packed_layer_parameters:
        dequantized = shape.room_parameters * shape.layers * item
    kept_layers = shape.layers - plan.checkpointed_layers
    inputs = tokens * shape.hidden * item
    waiting = inputs * (plan.checkpointed_layers - plan.offloaded_layers)
    on_their_way = inputs * _LAYERS_ON_THEIR_WAY if plan.offloaded_layers else 0
    parts = PeakParts(
        model=machine.allocated - (shape.embedding_bytes if plan.embeddings == "host" else 0),
        dequantized=dequantized,
        gradients=shape.adapter_parameters * 4,
        optimizer=shape.adapter_parameters * optimizer_bytes(plan.optimizer),
        # What went out has gone by the loss, and comes back when layers compute again.
        inputs=waiting if kept_layers else waiting + on_their_way,
        kept=(inputs + _kept_inside(shape, tokens)) * kept_layers,
        moment=_loss_moment(shape, tokens),
        widest="loss",
    )
    layer = _layer_moment(shape, plan, tokens, recomputed=kept_layers == 0)
    if layer > parts.moment:
        parts = replace(parts, moment=layer, widest="layer" if kept_layers else "layer computed again")
    if plan.checkpointed_layers:
        # The layers that compute again are the first ones, when all that others kept is gone.
        layer = _layer_moment(shape, plan, tokens, recomputed=True)
        again = replace(parts, inputs=waiting + on_their_way, kept=0, moment=layer, widest="layer computed again")
        parts = again if again.total > parts.total else parts
    return parts


def _kept_inside(shape: ModelShape, tokens: int) -> int:
    """What a layer keeps beside its input: query, key and value, what attention gave, the middle of the residual
    stream, gate and up."""
    gate_up = 2 * shape.intermediate + shape.gate_up_room
    a_token = shape.query_key_value + shape.attention + shape.hidden + gate_up
    if not shape.fused:
        # Autograd keeps norms in float32, both sides of every sum, and the activation's parts.
        a_token += 10 * shape.hidden + 2 * shape.intermediate + shape.spread
    return tokens * a_token * shape.item


def work_per_token(shape: ModelShape, plan: TrainingPlan, operations: float | None = None) -> float:
    """Operations a token, and what else takes time as if it were operations; the measure by which plans are compared.

    `operations` are those of a Machine.
    """
    share, offloaded = plan.checkpointed_layers / shape.layers, plan.offloaded_layers / shape.layers
    # The last product of a layer is not computed again.
    down = shape.hidden * shape.intermediate / shape.layer_parameters
    passes = 2 + share * ((1 - down) if shape.fused else 1)
    tokens = plan.tokens_per_micro_batch
    work = 2 * (shape.layers * shape.layer_parameters * passes + 2 * shape.head_parameters) * (tokens + IDLE_TOKENS)
    if plan.weights == "nf4":
        moved = shape.layers * shape.packed_layer_parameters * (shape.item + 0.53) * passes
        work += OPERATIONS_PER_BYTE * moved
    if operations is not None:
        host = HOST_SECONDS * (2 + share) + OFFLOAD_SECONDS * offloaded
        work = max(work, shape.layers * host * operations * REACHED)
    slower = 1 + (OFFLOAD_COST - 1) * offloaded
    slower *= HOST_EMBEDDINGS_COST if plan.embeddings == "host" else 1
    slower *= PAGED_COST if "paged" in plan.optimizer else 1
    return work * slower / tokens


def optimizer_bytes(name: str) -> float:
    """An optimiser's state on the device, in bytes a trained parameter."""
    if "paged" in name:
        return 0.0  # in memory that the driver moves to the host when it runs short
    return 2.1 if "8bit" in name else 8.0


def _candidates(
    shape: ModelShape, machine: Machine, training: TrainingSection, sizes: Sequence[int], optimizers: Sequence[str]
) -> Iterator[TrainingPlan]:
    can_dequantize = shape.packed_layer_parameters > 0 and training.fused_adapters
    places = _allowed(training.embeddings, "device", "host" if shape.embedding_bytes else None)
    stored = _allowed(training.weights, "nf4", "dequantized" if can_dequantize else None)
    for tokens, weights, embeddings, optimizer in product(sizes, stored, places, optimizers):
        for checkpointed, offloaded in _checkpointing(shape, machine, training):
            yield TrainingPlan(
                tokens, shape.layers, checkpointed, offloaded, weights, embeddings, optimizer, shape.fused
            )


def _offloaded(
    shape: ModelShape, machine: Machine, training: TrainingSection, plan: TrainingPlan, tokens: int, peak: int
) -> tuple[TrainingPlan, int]:
    """A plan of that `peak` with as few layers' inputs in host memory as make passes of `tokens` fit, and its peak.

    As it was, if none do.
    """
    if training.checkpointing != "auto" or not shape.fused or not machine.offloads:
        return plan, peak
    inputs = tokens * shape.hidden * shape.item
    least = math.ceil((peak - machine.limit) / inputs)
    # Those on their way take room at some moments and not at others.
    for count in range(least, least + _LAYERS_ON_THEIR_WAY + 1):
        if count > plan.checkpointed_layers or count * inputs > machine.host:
            break
        offloaded = replace(plan, offloaded_layers=count)
        lower = predicted_peak(shape, machine, replace(offloaded, tokens_per_micro_batch=tokens))
        if lower <= machine.limit:
            return offloaded, lower
    return plan, peak


def _allowed(wanted: str, first: Any, second: Any) -> list[Any]:
    options = [option for option in (first, second) if option is not None]
    return [option for option in options if wanted in ("auto", option)] or options[:1]


def _pass_sizes(training: TrainingSection, largest_step: int, longest_row: int) -> list[int]:
    if training.tokens_per_micro_batch != "auto":
        return [training.tokens_per_micro_batch]
    # Fewer and fewer tokens a pass, down to the longest row by itself.
    sizes = {max(longest_row, math.ceil(largest_step / passes * 1.02)) for passes in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)}
    return sorted({filled_up(min(size, max(largest_step, longest_row))) for size in sizes}, reverse=True)


def _checkpointing(shape: ModelShape, machine: Machine, training: TrainingSection) -> Iterator[tuple[int, int]]:
    wanted, layers = training.checkpointing, shape.layers
    if wanted == "none":
        yield 0, 0
    elif wanted == "all":
        yield layers, 0
    elif wanted == "offload":
        yield layers, layers if shape.fused and machine.offloads else 0
    elif isinstance(wanted, int):
        yield (min(wanted, layers) if shape.fused else layers), 0
    else:
        yield from ((count, 0) for count in (range(layers + 1) if shape.fused else (0, layers)))


def _layer_moment(shape: ModelShape, plan: TrainingPlan, tokens: int, *, recomputed: bool) -> float:
    """The widest moment of one layer's backward pass, beyond what waits for it."""
    piece = min(tokens, FEED_FORWARD_TOKENS)
    rows = tokens * (4 * shape.hidden + shape.spread)
    gate_up = piece * (2 * shape.intermediate + shape.gate_up_room) if recomputed else 0
    if recomputed:
        rows += tokens * (shape.query_key_value + shape.attention + shape.hidden)
    if not shape.fused:
        rows, gate_up = rows + 8 * tokens * shape.hidden, gate_up + 4 * piece * shape.intermediate
    # Either the activation's gradient is there with the last matrix, or the norm's with that of gate and up.
    matrix = shape.largest_group if plan.weights == "nf4" and shape.packed_layer_parameters else 0
    wide = max(piece * shape.intermediate + matrix / 2, piece * shape.hidden + matrix)
    return (rows + gate_up + wide + piece * shape.hidden) * shape.item


def _loss_moment(shape: ModelShape, tokens: int) -> float:
    # The last norm's input, the answers' rows, and their gradient in float32 and as it goes on; a norm that is not
    # fused keeps more.
    states = 3 if shape.fused else 5
    return tokens * shape.hidden * (states * shape.item + 4) + 1.5 * shape.logit_bytes
