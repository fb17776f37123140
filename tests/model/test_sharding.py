"""Packed weights shared out over processes: every layer is put together as it was, in time and in order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from medtune.errors import ModelError
from medtune.model import sharding
from medtune.model.quantization import packed_layers
from medtune.model.sharding import ShardedWeights

PROCESSES = 3


class Line:
    """Stands for the other processes, which hold the other parts of every layer; bytes come with the wait."""

    def __init__(self) -> None:
        self.wholes: dict[int, torch.Tensor] = {}
        self.asked: list[int] = []

    def gather(self, whole: torch.Tensor, part: torch.Tensor) -> Any:
        (number,) = (n for n, other in self.wholes.items() if other[: len(part)].equal(part))
        self.asked.append(number)
        whole.fill_(255)  # whatever is read too early is wrong
        line = self

        class Work:
            def wait(self) -> None:
                whole.copy_(line.wholes[number])

        return Work()


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line()
    monkeypatch.setenv("WORLD_SIZE", str(PROCESSES))
    monkeypatch.setattr(sharding, "open_group", lambda: None)
    monkeypatch.setattr(sharding, "gather_parts", line.gather)
    return line


def weights(layer: nn.Module) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for linear in packed_layers(layer):
        state: Any = linear.weight.quant_state  # type: ignore[attr-defined]
        found += [linear.weight.data.clone(), state.absmax.clone()]
    return found


def packed_layer() -> nn.Module:
    from bitsandbytes.nn import Linear4bit

    sizes = [(128, 64), (64, 192)]
    linear = [Linear4bit(*size, bias=False, compress_statistics=True, quant_type="nf4") for size in sizes]
    return nn.Sequential(*linear).to("cpu")  # by which they are quantised


@pytest.fixture
def shared(line: Line) -> tuple[list[nn.Module], list[list[torch.Tensor]], ShardedWeights]:
    """The layers of a model, their weights as they were, and what is shared out."""
    torch.manual_seed(0)
    layers = [packed_layer() for _ in range(5)]
    before = [weights(layer) for layer in layers]
    shards = ShardedWeights()
    for number, layer in enumerate(layers):
        shards.add(layer)
        line.wholes[number] = shards._buffers[number % sharding.BUFFERS].clone()
    return layers, before, shards


def same(layer: nn.Module, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(now, then) for now, then in zip(weights(layer), before, strict=True))


def test_a_pass_forth_and_back_reads_what_was_stored(shared: Any, line: Line) -> None:
    layers, before, shards = shared
    count = len(layers)
    for _ in range(2):
        for number in range(count):
            shards.require(number, forward=True)
            assert same(layers[number], before[number])
        for number in reversed(range(count)):
            shards.require(number, forward=False)
            assert same(layers[number], before[number])
    line.asked.clear()
    for number in range(count):
        shards.require(number, forward=True)
    # Each layer that is not there yet is asked for once, and before it is needed.
    assert line.asked == list(range(2, count))


def test_passes_without_a_way_back_begin_again_at_the_first_layer(shared: Any) -> None:
    layers, before, shards = shared
    for _ in range(3):
        for number in range(len(layers)):
            shards.require(number, forward=True)
            assert same(layers[number], before[number])


def test_passes_of_others_are_gathered_for_and_one_that_was_broken_off_is_finished(
    shared: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, before, shards = shared
    count = len(layers)
    told: list[bool] = []
    others = iter([True, True, False])  # which make one pass more after this process's own have ended

    def any_process(holds: bool) -> bool:
        told.append(holds)
        return holds or next(others)

    monkeypatch.setattr(sharding, "any_process", any_process)
    with shards.uneven_passes():
        for number in range(count - 1):  # in the last layer memory runs out
            shards.require(number, forward=True)
        for number in range(count):
            if number == 1:
                line.asked.clear()
            shards.require(number, forward=True)
            assert same(layers[number], before[number])
        assert line.asked == list(range(2, count))
        line.asked.clear()
    assert told == [True, True, False, False, False]
    assert line.asked == [*range(count)] * 2
    shards.require(0, forward=True)  # passes go as before
    assert len(told) == 5


@pytest.mark.parametrize("done", [0, 3, 5, 7, 10, 12])
def test_what_was_promised_is_gathered_for_wherever_memory_ran_out(shared: Any, line: Line, done: int) -> None:
    layers, before, shards = shared
    count = len(layers)
    way = [*[(n, True) for n in range(count)], *[(n, False) for n in reversed(range(count))]]
    way += [(n, True) for n in range(count)]
    asked = []
    for kept in (len(way), done):
        shards.require(0, forward=True)  # whatever was before
        shards.require(1, forward=True)
        line.asked.clear()
        shards.promise(True, False)
        for number, forward in way[:kept]:
            shards.require(number, forward=forward)
        shards.keep_promise()
        asked.append(line.asked[:])
    assert asked[0] == asked[1]
    assert same(layers[-1], before[-1])


def test_a_pass_that_fails_leaves_the_others_alone(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = shared[2]
    told: list[bool] = []
    monkeypatch.setattr(sharding, "any_process", told.append)

    def fail() -> None:
        with shards.uneven_passes():
            shards.require(0, forward=True)
            raise ModelError("out of memory")

    with pytest.raises(ModelError, match="out of memory"):
        fail()
    assert told == [True]


def test_a_process_keeps_its_part_and_two_layers(shared: Any) -> None:
    layers, before, shards = shared
    whole = sum(tensor.numel() * tensor.element_size() for tensor in before[0])
    assert len(shards.parts) == len(layers)
    for part in shards.parts:
        assert whole <= part.numel() * PROCESSES < whole + 256 * (PROCESSES + 1) * len(before[0])
    addresses = {linear.weight.data.data_ptr() for layer in layers for linear in packed_layers(layer)}
    assert len(addresses) == 2 * len(packed_layers(layers[0]))


def test_weights_that_are_not_packed_are_refused(line: Line) -> None:
    with pytest.raises(ModelError, match=r"^only packed weights are shared out; set model.quantization to nf4$"):
        ShardedWeights().add(nn.Linear(4, 4))
