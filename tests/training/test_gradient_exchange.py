"""Gradients of several processes added up: what goes out when, and what a step that is begun again sends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from medtune.training import gradient_exchange
from medtune.training.gradient_exchange import GradientExchange

OTHER = 10.0  # what the other process adds to every number


class Line:
    """Stands for the exchange with one other process: it notes what goes out, and the sum comes with the wait."""

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []

    def add_up(self, tensor: torch.Tensor) -> Any:
        self.sent.append(tensor)
        return tensor

    def wait_for_sums(self, begun: list[torch.Tensor]) -> None:
        for tensor in begun:
            tensor += OTHER


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line()
    monkeypatch.setattr(gradient_exchange, "open_group", lambda: None)
    monkeypatch.setattr(gradient_exchange, "add_up", line.add_up)
    monkeypatch.setattr(gradient_exchange, "wait_for_sums", line.wait_for_sums)
    return line


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))


def exchange_of(model: nn.Module, counts: int = 1) -> GradientExchange:
    """A buffer for each layer."""
    return GradientExchange(list(model.parameters()), counts, buffer_bytes=16 * 4)


def gradients(model: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(model(inputs).square().sum(), list(model.parameters())))


def backward(model: nn.Module, inputs: torch.Tensor) -> None:
    model(inputs).square().sum().backward()


def test_the_sum_over_passes_and_processes_is_in_the_gradients(model: nn.Sequential, line: Line) -> None:
    first, second = torch.randn(2, 4), torch.randn(3, 4)
    expected = [a + b + OTHER for a, b in zip(gradients(model, first), gradients(model, second), strict=True)]
    exchange = exchange_of(model, counts=2)
    for _ in range(2):  # a second step begins anew
        line.sent.clear()
        exchange.begin()
        backward(model, first)
        assert line.sent == []  # nothing before the last pass
        exchange.expect_last_pass()
        backward(model, second)
        assert exchange.finish(torch.tensor(2.5), 1.0) == [2.5 + OTHER, 1.0 + OTHER]
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)
        for parameter in model.parameters():
            parameter.grad = None  # as an optimiser's step ends


def test_what_is_complete_goes_out_while_earlier_layers_are_computed(model: nn.Sequential, line: Line) -> None:
    exchange = exchange_of(model)
    exchange.begin()
    exchange.expect_last_pass()
    out: list[int] = []
    model[0].weight.register_post_accumulate_grad_hook(lambda parameter: out.append(len(line.sent)))
    backward(model, torch.randn(2, 4))
    assert out == [2]  # the last two layers' are under way when the first layer's gradient is there
    assert len(line.sent) == 2  # the last buffer holds the counts too
    exchange.finish(0.0)
    assert len(line.sent) == 3


def test_a_step_begun_again_sends_each_gradient_once(model: nn.Sequential, line: Line) -> None:
    """Memory runs out in the last pass after one buffer has gone out."""
    first, second = torch.randn(2, 4), torch.randn(3, 4)
    expected = [a + b + OTHER for a, b in zip(gradients(model, first), gradients(model, second), strict=True)]
    exchange = exchange_of(model)
    exchange.begin()
    backward(model, first)
    exchange.expect_last_pass()

    def run_out(gradient: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("simulated")

    hook = model[0].register_full_backward_hook(lambda *_: None)
    stop = model[1].weight.register_hook(run_out)
    with pytest.raises(torch.OutOfMemoryError):
        backward(model, second)
    hook.remove()
    stop.remove()
    assert len(line.sent) == 1
    exchange.begin()
    for inputs in (first[:1], first[1:]):  # in smaller passes now
        backward(model, inputs)
    exchange.expect_last_pass()
    backward(model, second)
    exchange.finish(0.0)
    assert len(line.sent) == 3
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_process_without_rows_takes_part(model: nn.Sequential, line: Line) -> None:
    exchange = exchange_of(model)
    exchange.begin()
    assert exchange.finish(0.0) == [OTHER]
    assert len(line.sent) == 3
    assert all((parameter.grad == OTHER).all() for parameter in model.parameters())


def test_it_leaves_no_hook(model: nn.Sequential, line: Line) -> None:
    exchange = exchange_of(model)
    exchange.begin()
    exchange.expect_last_pass()
    exchange.close()
    backward(model, torch.randn(2, 4))
    assert line.sent == []


def test_large_parameters_have_buffers_of_their_own(line: Line) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 50, bias=False), nn.Linear(50, 2, bias=False))
    exchange = GradientExchange(list(model.parameters()), 3, buffer_bytes=80)
    exchange.begin()
    exchange.finish(1.0, 2.0, 3.0)
    assert [tensor.numel() for tensor in line.sent] == [100, 100, 4 + 3]
