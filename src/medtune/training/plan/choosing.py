"""How a step is computed in the memory that is there: the fastest plan whose predicted peak fits.

A plan changes neither the rows of a step nor its gradient: tokens per pass, which layers are computed again in the
backward pass, where their inputs wait, whether base weights stay packed, and where the embeddings sit.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from medtune.config.training import TrainingSection
from medtune.errors import ModelError
from medtune.model.packing import filled_up
from medtune.model.quantization import AS_STORED, DEQUANTIZED
from medtune.training.plan.peaks import GIB, ON_THEIR_WAY_OUT, Machine, ModelShape, TrainingPlan, peak_parts

# Operations of matrix products that take as long as moving a byte: about 200 on a T4, A100 and H200 alike.
OPERATIONS_PER_BYTE = 200
# A pass of few tokens does not fill the GPU: what its products cost beside their operations, as tokens.
IDLE_TOKENS = 64
# The share of a GPU's operations a second that matrix products of these shapes reach.
REACHED = 0.7
# Seconds that the host takes to launch a layer's forward pass; as much for a backward pass, and for computing again. A
# GPU that is faster waits.
HOST_SECONDS = 0.0022
# Slowdowns assumed for what travels over the bus beside the computation, and for an optimiser that goes through its
# parameters one by one and waits.
HOST_EMBEDDINGS_COST, PAGED_COST = 1.005, 1.05
# Copies out and back pass beside the computation, but share its memory, and cost the host seconds a layer.
OFFLOAD_COST, OFFLOAD_SECONDS = 1.01, 0.0008
# The share of the free memory that training plans with. The rest is for the allocator's gaps between activations of
# passes of different sizes: 0.74 GiB beside 13.71 on an H200.
MARGIN = 0.9


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
    """The plan with the least work a token among those that fit. Settings that `training` makes by hand are kept.

    `largest_step` is the most tokens of one optimiser step, `optimizers` those to choose from, the best first. Raises
    ModelError if nothing fits, with what the smallest plan would take; unless it `must_fit`, that plan comes back.
    """
    work = partial(work_per_token, shape, operations=machine.operations)
    best: TrainingPlan | None = None
    smallest: TrainingPlan | None = None
    for plan in _candidates(shape, machine, training, _pass_sizes(training, largest_step, longest_row), optimizers):
        # A row over the budget gets a pass of its own, and every pass is filled up.
        widest = filled_up(max(plan.tokens_per_micro_batch, longest_row))
        peak = peak_parts(shape, machine, replace(plan, tokens_per_micro_batch=widest)).total
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
            "training does not fit",
            f"the smallest plan takes {smallest.peak_bytes / GIB:.1f} GiB of {machine.limit / GIB:.1f} GiB "
            f"({smallest.describe()})",
            "lower training.max_length or lora.rank, or set training.checkpointing, weights and embeddings to auto",
        )
    return best


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
    if plan.weights == AS_STORED:
        moved = shape.layers * shape.packed_layer_parameters * shape.unpacking_bytes * passes
        work += OPERATIONS_PER_BYTE * moved
    if operations is not None:
        host = HOST_SECONDS * (2 + share) + OFFLOAD_SECONDS * offloaded
        work = max(work, shape.layers * host * operations * REACHED)
    slower = 1 + (OFFLOAD_COST - 1) * offloaded
    slower *= HOST_EMBEDDINGS_COST if plan.embeddings == "host" else 1
    slower *= PAGED_COST if "paged" in plan.optimizer else 1
    return work * slower / tokens


def _candidates(
    shape: ModelShape, machine: Machine, training: TrainingSection, sizes: Sequence[int], optimizers: Sequence[str]
) -> Iterator[TrainingPlan]:
    can_dequantize = shape.packed_layer_parameters > 0 and training.fused_adapters and not shape.by_peft
    places = _allowed(training.embeddings, "device", "host" if shape.embedding_bytes else None)
    if shape.embeddings_wait:
        places = ["host"]
    # Shared out over processes or whole, they are dequantised in every step.
    wanted = AS_STORED if training.weights == "sharded" else training.weights
    stored = _allowed(wanted, AS_STORED, DEQUANTIZED if can_dequantize else None)
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
    for count in range(least, least + ON_THEIR_WAY_OUT + 1):
        if count > plan.checkpointed_layers or count * inputs > machine.host:
            break
        offloaded = replace(plan, offloaded_layers=count)
        lower = peak_parts(shape, machine, replace(offloaded, tokens_per_micro_batch=tokens)).total
        if lower <= machine.limit:
            return offloaded, lower
    return plan, peak


def _allowed(wanted: str, first: Any, second: Any) -> list[Any]:
    options = [option for option in (first, second) if option is not None]
    return [option for option in options if wanted in ("auto", option)] or options[:1]


def _pass_sizes(training: TrainingSection, largest_step: int, longest_row: int) -> list[int]:
    if training.tokens_per_micro_batch != "auto":
        # No pass takes more than there is in a step.
        return [min(training.tokens_per_micro_batch, filled_up(max(largest_step, longest_row)))]
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
