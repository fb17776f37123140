"""How step time and memory follow the number of GPUs, by arithmetic from what one GPU was measured to do.

Prints the tables of docs/scaling.md, whose text states every assumption. Nothing is measured here: no GPU is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from row_balance import balance_table, simulate_idle

GB = 1e9

# Links and cards ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """What the slowest link of a ring carries in one direction, in bytes a second."""

    name: str
    bandwidth: float


NVLINK = Link("NVLink", 450 * GB)
PCIE4 = Link("PCIe 4 x16", 25 * GB)
PCIE3 = Link("PCIe 3 x16", 12 * GB)
INFINIBAND = Link("100 Gb/s InfiniBand a node", 12.5 * GB)
ETHERNET = Link("10 Gb/s Ethernet a node", 1.25 * GB)
# Seconds from one GPU of a ring to the next.
_HOP = 10e-6


@dataclass(frozen=True)
class Card:
    """A GPU: dense 16-bit operations a second, and memory in bytes."""

    name: str
    operations: float
    memory: float


H200 = Card("H200", 989e12, 141 * GB)
RTX_4090 = Card("RTX 4090", 165e12, 24 * 2**30)
T4 = Card("T4", 65e12, 14.56 * 2**30)


def gather_seconds(size: float, gpus: int, link: Link) -> float:
    """Every GPU gets the parts of `size` bytes that the others hold."""
    return (gpus - 1) / gpus * size / link.bandwidth + (gpus - 1) * _HOP


def exchange_seconds(size: float, gpus: int, link: Link) -> float:
    """`size` bytes of every GPU are added up for all of them, around a ring."""
    return 2 * gather_seconds(size, gpus, link)


# Models ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A LLaMA's widths, with LLaMA-3's vocabulary, and what adapters of rank 16 on all projections add."""

    layers: int
    hidden: int
    key_value: int
    inner: int
    vocabulary: int = 128_256
    rank: int = 16

    @property
    def projections(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's seven projections."""
        attention = [(self.hidden, self.hidden), (self.hidden, self.key_value), (self.hidden, self.key_value)]
        return [*attention, (self.hidden, self.hidden), *[(self.hidden, self.inner)] * 2, (self.inner, self.hidden)]

    @property
    def layer_weights(self) -> float:
        return sum(inputs * outputs for inputs, outputs in self.projections)

    @property
    def head_weights(self) -> float:
        return self.vocabulary * self.hidden

    @property
    def adapter_weights(self) -> float:
        return self.layers * self.rank * sum(inputs + outputs for inputs, outputs in self.projections)

    @property
    def packed_bytes(self) -> float:
        """The layers in NF4: half a byte a weight, and the scale of 64 weights in a byte and a little."""
        return self.layers * self.layer_weights * (1 / 2 + 1 / 64 + 4 / (64 * 256))


LLAMA_8B = Shape(layers=32, hidden=4096, key_value=1024, inner=14_336)
LLAMA_70B = Shape(layers=80, hidden=8192, key_value=1024, inner=28_672)


# Data-parallel training of the 8B model -------------------------------------------------------------------------------

# docs/performance.md: one H200, 64 rows a step in one pass, nothing computed again.
_MEASURED_TOKENS, _MEASURED_SECONDS, _MEASURED_ROWS = 18_421, 1.048, 64
# There, limited to a T4's memory, and with memory unlimited: what computing layers again costs.
_LIMITED = 13_153 / 17_984
# Peaks there in GiB: with memory unlimited, and limited to a T4's.
_PEAK, _LIMITED_PEAK = 83.19, 13.58
# The gradient of a frozen model's inputs takes as many operations as its outputs.
_BACKWARD = 1 / 2
# The buffer that is complete only with the last gradient (`training/gradient_exchange.py`).
_LAST_BUFFER = 25 * 2**20

REPLICATED = (
    (H200, 1, NVLINK, 64), (H200, 2, NVLINK, 64), (H200, 4, NVLINK, 64), (H200, 8, NVLINK, 64),
    (H200, 16, INFINIBAND, 64), (H200, 64, INFINIBAND, 64), (H200, 512, INFINIBAND, 64),
    (H200, 16, ETHERNET, 64), (H200, 64, ETHERNET, 64),
    (RTX_4090, 2, PCIE4, 32), (RTX_4090, 4, PCIE4, 32), (T4, 2, PCIE3, 16),
)  # fmt: skip


@dataclass(frozen=True)
class ReplicatedStep:
    """A step for which every GPU has the model.

    Seconds of the exchange, those for which the step waits for it, those of the step; tokens of all GPUs; GiB of one.
    """

    exchange: float
    exposed: float
    seconds: float
    tokens: float
    peak_gib: float


def replicated_step(card: Card, gpus: int, link: Link, rows: int) -> ReplicatedStep:
    """A step of the 8B model with so many rows a GPU."""
    roomy = card.memory > _PEAK * 2**30
    speed = _MEASURED_TOKENS / _MEASURED_SECONDS * card.operations / H200.operations * (1 if roomy else _LIMITED)
    tokens = _MEASURED_TOKENS / _MEASURED_ROWS * rows
    computed = tokens / speed
    idle = simulate_idle(gpus, rows) if gpus > 1 else 0.0
    gradients = 4 * LLAMA_8B.adapter_weights
    exchange = exchange_seconds(gradients, gpus, link)
    last = exchange_seconds(_LAST_BUFFER, gpus, link)
    exposed = last + max(0.0, exchange - last - _BACKWARD * computed)
    seconds = computed / (1 - idle) + exposed
    return ReplicatedStep(exchange, exposed, seconds, gpus * tokens, _PEAK if roomy else _LIMITED_PEAK)


def replicated_table() -> Iterator[str]:
    """A line for each of `REPLICATED`."""
    yield (
        "| GPUs | slowest link | rows a step | exchange, ms | of which waited for | step, ms | tokens a second | "
        "share of ideal | GiB a GPU |"
    )
    yield "| --- " * 9 + "|"
    for card, gpus, link, rows in REPLICATED:
        step, alone = replicated_step(card, gpus, link, rows), replicated_step(card, 1, link, rows)
        ideal = alone.seconds / step.seconds
        name = link.name if gpus > 1 else ""
        yield (
            f"| {gpus} {card.name} | {name} | {rows * gpus:,} | {1e3 * step.exchange:,.1f} | "
            f"{1e3 * step.exposed:,.1f} | {1e3 * step.seconds:,.0f} | {step.tokens / step.seconds:,.0f} | "
            f"{100 * ideal:.1f} % | {step.peak_gib:.1f} |"
        )


# Sharded training of the 70B model ------------------------------------------------------------------------------------

# docs/performance.md: the share of a GPU's dense 16-bit operations that training steps reached.
_REACHED = 0.53
_STEP_TOKENS = 16_384
# Packed layers that a GPU holds whole: the one that is computed and the one that comes next.
_GATHERED_LAYERS = 2
# Bytes of an adapter's weight, its gradient and two moments of 8 bits.
_ADAPTER_BYTES = 4 + 4 + 2

SHARDED = (
    (RTX_4090, 2, PCIE4, 2048), (RTX_4090, 4, PCIE4, 2048), (RTX_4090, 8, PCIE4, 2048),
    (RTX_4090, 2, INFINIBAND, 2048), (RTX_4090, 2, ETHERNET, 2048), (T4, 4, PCIE3, 2048), (T4, 8, PCIE3, 2048),
    (H200, 2, NVLINK, 4096), (H200, 8, NVLINK, 4096), (H200, 16, INFINIBAND, 4096), (H200, 16, ETHERNET, 4096),
)  # fmt: skip


@dataclass(frozen=True)
class ShardedStep:
    """A step for which every GPU holds a part of the packed weights.

    Bytes that a GPU receives in one gather of all layers; tokens of a pass whose forward computation takes as long;
    seconds of the step, and of its computation alone; tokens of all GPUs; bytes of weights that a GPU holds.
    """

    gathered: float
    hiding_tokens: float
    seconds: float
    computed: float
    tokens: float
    held: float


def sharded_step(card: Card, gpus: int, link: Link, pass_tokens: int) -> ShardedStep:
    """A step of the 70B model with passes of so many tokens, all layers computed again."""
    shape = LLAMA_70B
    # Forwards; then forwards again and backwards.
    first = 2 * shape.layers * shape.layer_weights / (_REACHED * card.operations)
    passes = _STEP_TOKENS / pass_tokens
    gather = gather_seconds(shape.packed_bytes, gpus, link)
    forwards, backwards = pass_tokens * first, 2 * pass_tokens * first
    exchange = exchange_seconds(4 * shape.adapter_weights, gpus, link)
    computed = passes * (forwards + backwards)
    exposed = max(0.0, exchange - backwards)
    seconds = passes * (max(forwards, gather) + max(backwards, gather)) + exposed
    held = shape.packed_bytes * (1 / gpus + _GATHERED_LAYERS / shape.layers)
    held += _ADAPTER_BYTES * shape.adapter_weights + 2 * shape.head_weights / gpus
    gathered = (gpus - 1) / gpus * shape.packed_bytes
    return ShardedStep(gathered, gather / first, seconds, computed, gpus * _STEP_TOKENS, held)


def sharded_table() -> Iterator[str]:
    """A line for each of `SHARDED`."""
    yield (
        "| GPUs | slowest link | GB a gather | tokens that hide it | tokens a pass | step, s | tokens a second | "
        "share of a copy's speed | GB a GPU | GB left |"
    )
    yield "| --- " * 10 + "|"
    for card, gpus, link, tokens in SHARDED:
        step = sharded_step(card, gpus, link, tokens)
        yield (
            f"| {gpus} {card.name} | {link.name} | {step.gathered / GB:.1f} | {step.hiding_tokens:,.0f} | {tokens:,} | "
            f"{step.seconds:,.1f} | {step.tokens / step.seconds:,.0f} | {100 * step.computed / step.seconds:.0f} % | "
            f"{step.held / GB:.1f} | {(card.memory - step.held) / GB:.1f} |"
        )


TABLES = {"replicated": replicated_table, "sharded": sharded_table, "balance": balance_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], help="which tables; all unless given")
    for name in parser.parse_args().tables or TABLES:
        print(f"<!-- {name} -->\n", *TABLES[name](), f"\n<!-- /{name} -->\n", sep="\n")


if __name__ == "__main__":
    main()
