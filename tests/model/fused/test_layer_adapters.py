"""Adapters of fused layers stay PEFT's parameters: saved, loaded, replaced and optimised as ever."""

import pytest
import torch
from packed_models import (
    FAMILIES,
    adapted,
    base_model,
    error,
    gradients_of,
    lift_norms,
    pack,
    packed_loss,
    separate_loss,
    some_rows,
)  # fmt: skip
from safetensors.torch import load_file

from medtune.model.adapters import attach_adapter
from medtune.model.fused.layers import fuse_layers

ROWS = some_rows()


def adapters(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def used(**options):
    """A fused model that has computed once, so that its adapters share their memory."""
    model = adapted(**options)
    layers = fuse_layers(model)
    packed_loss(model, ROWS)
    return model, layers


def test_adapters_of_a_layer_are_views_of_one_tensor():
    model, layers = used()
    values = {name: parameter.detach().clone() for name, parameter in adapters(adapted()).items()}
    assert all(torch.equal(parameter, values[name]) for name, parameter in adapters(model).items())
    for layer in layers:
        flat = layer.adapters.flat
        assert flat.numel() == sum(parameter.numel() for parameter in layer.adapters.parameters)
        assert {p.untyped_storage().data_ptr() for p in layer.adapters.parameters} == {flat.data_ptr()}
    parameters = list(adapters(model).values())
    assert sum(len(layer.adapters.parameters) for layer in layers) == len(parameters) == 3 * 7 * 2
    assert all(parameter.is_leaf and parameter.is_contiguous() for parameter in parameters)


def test_saved_adapters_are_independent_and_load_in_plain_peft(tmp_path):
    model, _ = used()
    packed_loss(model, ROWS).backward()
    torch.optim.SGD(adapters(model).values(), lr=0.1).step()
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert len(stored) == len(adapters(model))
    for name, parameter in adapters(model).items():
        assert torch.equal(stored[name.replace(".default", "")], parameter)
    size = sum(parameter.numel() * 4 for parameter in adapters(model).values())
    assert size < (tmp_path / "adapter_model.safetensors").stat().st_size < size + 10_000
    plain = attach_adapter(base_model(FAMILIES["llama"]), tmp_path, trainable=False)
    batch, _ = pack(ROWS)
    with torch.no_grad():
        expected = plain(**batch, use_cache=False).logits
        torch.testing.assert_close(model(**batch, use_cache=False).logits, expected, atol=1e-5, rtol=1e-5)
    assert (adapted()(**batch, use_cache=False).logits - expected).abs().max() > 1e-3


def test_loaded_adapters_are_what_is_computed_with(tmp_path):
    from peft import load_peft_weights, set_peft_model_state_dict

    other = adapted()
    for parameter in adapters(other).values():
        parameter.data *= 1.5
    other.save_pretrained(tmp_path)
    model, _ = used()
    set_peft_model_state_dict(model, load_peft_weights(str(tmp_path), device="cpu"))
    loss, gradients = gradients_of(model, packed_loss(model, ROWS))
    expected_loss, expected = gradients_of(other, separate_loss(other, ROWS))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert error(gradients, expected) < 1e-5


def round_and_put_back(model):
    """What TRL does to the adapters of a 4-bit model, and what the trainer does about it."""
    values = {name: parameter.detach().clone() for name, parameter in adapters(model).items()}
    for parameter in adapters(model).values():
        parameter.data = parameter.data.bfloat16()
    for name, parameter in adapters(model).items():
        parameter.data = parameter.data.float()
        parameter.data.copy_(values[name])


def replace_all(model):
    for parameter in adapters(model).values():
        parameter.data = parameter.data.clone() * 2


def replace_the_first(model):
    parameter = next(iter(adapters(model).values()))
    parameter.data = parameter.data * -3


def replace_the_last(model):
    parameter = list(adapters(model).values())[-1]
    parameter.data = parameter.data + 1


def swap_two(model):
    first, second = [p for name, p in adapters(model).items() if name.endswith("o_proj.lora_A.default.weight")][:2]
    first.data, second.data = second.data, first.data


def write_in_place(model):
    with torch.no_grad():
        for parameter in adapters(model).values():
            parameter.mul_(1.5)


def move(model):
    model.to(torch.float64).to(torch.float32)


CHANGES = [round_and_put_back, replace_all, replace_the_first, replace_the_last, swap_two, write_in_place, move]


@pytest.mark.parametrize("change", CHANGES)
def test_parameters_that_somebody_changed_are_read_right(change):
    plain, (model, layers) = adapted(), used()
    for each in (plain, model):
        change(each)
    expected_loss, expected = gradients_of(plain, separate_loss(plain, ROWS))
    # The second pass finds them together again.
    for _ in range(2):
        loss, gradients = gradients_of(model, packed_loss(model, ROWS))
        assert loss == pytest.approx(expected_loss, rel=1e-5)
        assert error(gradients, expected) < 1e-5
    assert all(p.dtype == torch.float32 for p in adapters(model).values())
    for layer in layers:
        assert {p.untyped_storage().data_ptr() for p in layer.adapters.parameters} == {layer.adapters.flat.data_ptr()}


def test_a_healed_adapter_still_takes_its_optimiser_steps():
    """Where the parameters' storage changes between an optimiser's making and its first step."""
    model = adapted()
    fuse_layers(model)
    optimizer = torch.optim.SGD(adapters(model).values(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in adapters(model).items()}
    packed_loss(model, ROWS).backward()
    optimizer.step()
    for name, parameter in adapters(model).items():
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * parameter.grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("recompute", [False, True])
def test_optimiser_steps_follow_pefts(recompute):
    plain, model = lift_norms(adapted(dtype=torch.float64)), adapted(dtype=torch.float64)
    for layer in fuse_layers(model):
        layer.recompute = recompute
    histories = []
    for each, loss_of in ((plain, separate_loss), (model, packed_loss)):
        optimizer = torch.optim.AdamW(adapters(each).values(), lr=1e-2, weight_decay=0.1)
        losses = []
        for step in range(3):
            optimizer.zero_grad()
            loss = loss_of(each, some_rows([6 + step, 9]))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        histories.append([*losses, loss_of(each, ROWS).item()])
    assert histories[1] == pytest.approx(histories[0], rel=1e-9)
    untrained = adapted(dtype=torch.float64)
    assert histories[0][-1] != pytest.approx(separate_loss(untrained, ROWS).item(), rel=1e-2)
    expected = adapters(plain)
    for name, parameter in adapters(model).items():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-7, atol=1e-9)
