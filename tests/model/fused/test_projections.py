"""Base and adapter as one product are PEFT's layers, whatever lies in the room that nobody may read."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from medtune.model.fused.projections import Adapter, Projections

INPUTS, SIZES = 24, (16, 8, 40)


def lora_layers(ranks, bias):
    torch.manual_seed(0)
    names = [f"part{place}" for place in range(len(ranks))]
    holder = nn.Module()
    for name, size in zip(names, SIZES, strict=False):
        holder.add_module(name, nn.Linear(INPUTS, size, bias=bias))
    pattern = dict(zip(names, ranks, strict=True))
    config = LoraConfig(r=8, lora_alpha=12, target_modules=names, rank_pattern=pattern, init_lora_weights=False)
    model = get_peft_model(holder.double(), config).base_model.model
    return [getattr(model, name).double() for name in names]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ranks", [(8, 8, 8), (3, 3, 3), (1, 5, 2), (30, 20, 25), (16,)])
def test_wide_products_are_pefts_layers(ranks, bias):
    layers = lora_layers(ranks, bias)
    x = torch.randn(7, INPUTS, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(7, sum(SIZES[: len(ranks)]), dtype=torch.float64)
    expected = torch.cat([layer(x) for layer in layers], 1) + residual
    upstream = torch.randn_like(expected)
    parameters = [getattr(layer, half)["default"].weight for half in ("lora_A", "lora_B") for layer in layers]
    input_gradient, *gradients = torch.autograd.grad(expected, [x, *parameters], upstream)

    projections = Projections(layers, wide=True)
    adapter = Adapter.of(projections.parameters(), torch.float64)

    def with_nan_room(rows):
        return torch.cat([rows.detach(), rows.new_full((len(rows), projections.room), float("nan"))], 1)

    for _ in range(2):  # the room of kept weights holds what was written before
        rows, gradient = with_nan_room(x), with_nan_room(upstream)
        with torch.no_grad():
            output, reduced = projections.forward_wide(rows, adapter, residual)
            by_input, reduced_gradient = projections.input_gradient_wide(gradient, adapter)
            own = projections.adapter_gradients(gradient, rows, reduced, reduced_gradient, adapter)
            unwanted, narrow = projections.input_gradient_wide(with_nan_room(upstream), adapter, wanted=False)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(by_input, input_gradient)
        assert unwanted is None
        torch.testing.assert_close(narrow, reduced_gradient)
        for value, wanted in zip(own, gradients, strict=True):
            torch.testing.assert_close(value, wanted)
