"""The peak of GPU memory in a training step, predicted part by part from a model's shape and a plan."""

from dataclasses import dataclass, replace
from typing import Literal

from medtune.model.fused.layers import FEED_FORWARD_TOKENS
from medtune.model.host_store import LAYERS_AHEAD
from medtune.model.packing import balanced_slices
from medtune.model.quantization import AS_STORED, DEQUANTIZED

GIB = 2**30
# Inputs on the device while they are copied out; and back, that of the current layer and of the next.
ON_THEIR_WAY_OUT, ON_THEIR_WAY_BACK = LAYERS_AHEAD + 1, 2


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a plan needs to know of a model. Sizes are elements, `item` bytes each, unless they say bytes.

    `spread` is what attention keeps of a token while its graph is there, beside query, key, value and result; rooms are
    what fused layers hold beside the weights of a layer and beside gate and up, for the adapters. `unpacking_bytes` are
    read and written to dequantise one packed weight. Where processes share out a model, `embeddings_wait` says that
    embeddings are in host memory already, and `head_slices` that the head is gathered in slices. Where PEFT computes
    adapters itself, `by_peft`, they may keep more of a token in each layer, and take `adapter_bytes` for a moment, as
    DoRA does, which puts whole weights together.
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
    unpacking_bytes: float
    largest_group: int
    room_parameters: int
    gate_up_room: int
    head_parameters: int
    adapter_parameters: int
    embedding_bytes: int
    logit_bytes: int
    fused: bool
    embeddings_wait: bool = False
    head_slices: bool = False
    by_peft: bool = False
    kept_by_adapters: int = 0
    adapter_bytes: int = 0
    trained_head: bool = False


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
        those = "" if self.offloaded_layers == self.checkpointed_layers else f"{self.offloaded_layers} "
        from_host = f", {those}from inputs in host memory" if self.offloaded_layers else ""
        parts = [
            f"passes of up to {self.tokens_per_micro_batch:,} tokens",
            f"{again} computed again{from_host}",
            f"base weights {'dequantised once' if self.weights == DEQUANTIZED else 'as they are stored'}",
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


def peak_parts(shape: ModelShape, machine: Machine, plan: TrainingPlan) -> PeakParts:
    """The predicted peak of passes of `plan.tokens_per_micro_batch` tokens, part by part."""
    tokens, item = plan.tokens_per_micro_batch, shape.item
    dequantized = 0
    if plan.weights == DEQUANTIZED or not shape.packed_layer_parameters:
        dequantized = (shape.packed_layer_parameters + shape.room_parameters) * shape.layers * item
    kept_layers = shape.layers - plan.checkpointed_layers
    inputs = tokens * shape.hidden * item
    waiting = inputs * (plan.checkpointed_layers - plan.offloaded_layers)
    out, back = (ON_THEIR_WAY_OUT, ON_THEIR_WAY_BACK) if plan.offloaded_layers else (0, 0)
    parts = PeakParts(
        model=machine.allocated - (shape.embedding_bytes if plan.embeddings == "host" else 0),
        dequantized=dequantized,
        gradients=shape.adapter_parameters * 4,
        optimizer=shape.adapter_parameters * optimizer_bytes(plan.optimizer),
        # What went out has gone by the loss, but for the last layers' if these compute again.
        inputs=waiting if kept_layers else waiting + inputs * out,
        kept=(inputs + _kept_inside(shape, tokens)) * kept_layers,
        moment=_loss_moment(shape, tokens),
        widest="loss",
    )
    if kept_layers and (layer := _layer_moment(shape, plan, tokens, recomputed=False)) > parts.moment:
        parts = replace(parts, moment=layer, widest="layer")
    if plan.checkpointed_layers:
        # The layers that compute again are the first ones, when all that others kept is gone.
        layer = _layer_moment(shape, plan, tokens, recomputed=True)
        again = replace(parts, inputs=waiting + inputs * back, kept=0, moment=layer, widest="layer computed again")
        parts = again if again.total > parts.total else parts
    return parts


def _kept_inside(shape: ModelShape, tokens: int) -> int:
    """What a layer keeps beside its input: query, key and value, what attention gave, the middle of the residual
    stream, gate and up."""
    gate_up = 2 * shape.intermediate + shape.gate_up_room
    a_token = shape.query_key_value + shape.attention + shape.hidden + gate_up
    if not shape.fused:
        # Autograd keeps norms in float32, both sides of every sum, and the activation's parts.
        a_token += 10 * shape.hidden + 2 * shape.intermediate + shape.spread + shape.kept_by_adapters
    return tokens * a_token * shape.item


def optimizer_bytes(name: str) -> float:
    """An optimiser's state on the device, in bytes a trained parameter."""
    if "paged" in name:
        return 0.0  # in memory that the driver moves to the host when it runs short
    return 2.1 if "8bit" in name else 8.0


def _layer_moment(shape: ModelShape, plan: TrainingPlan, tokens: int, *, recomputed: bool) -> float:
    """The widest moment of one layer's backward pass, beyond what waits for it."""
    piece = max(part.stop - part.start for part in balanced_slices(tokens, FEED_FORWARD_TOKENS))
    rows = tokens * ((4 if recomputed else 2) * shape.hidden + shape.spread)
    gate_up = piece * (2 * shape.intermediate + shape.gate_up_room) if recomputed else 0
    if recomputed:
        rows += tokens * (shape.query_key_value + shape.attention + shape.hidden)
    if not shape.fused:
        rows, gate_up = rows + 8 * tokens * shape.hidden, gate_up + 4 * piece * shape.intermediate
    # Either the activation's gradient is there with the last matrix, or the norm's with that of gate and up.
    matrix = shape.largest_group if plan.weights == AS_STORED and shape.packed_layer_parameters else 0
    wide = max(piece * shape.intermediate + matrix / 2, piece * shape.hidden + matrix)
    rows += tokens * shape.kept_by_adapters if recomputed else 0
    return float((rows + gate_up + wide + piece * shape.hidden) * shape.item + shape.adapter_bytes)


def _loss_moment(shape: ModelShape, tokens: int) -> float:
    # A norm that is not fused keeps more than its input.
    norm = 1 if shape.fused else 3
    # Forwards the norm's output and the answers' rows beside logits and their gradient; backwards, when these are gone,
    # the answers' rows, and their gradient in float32, in 16 bit and as it goes on. Every token may be an answer's.
    summed = 4 if shape.head_slices else 0  # the gradient in float32, to which every slice adds
    forward = tokens * shape.hidden * ((norm + 2) * shape.item + summed) + 1.5 * shape.logit_bytes
    backward = tokens * shape.hidden * ((norm + 2) * shape.item + 4)
    # A head that is trained is float32: there is autocast's copy, and its gradient beside the sum of those before; of
    # the logits, which a frozen head overwrites with their gradient, there are float32 ones and two gradients.
    head = shape.head_parameters * (shape.item + 4) + 5 * shape.logit_bytes if shape.trained_head else 0
    return max(forward, backward) + head
