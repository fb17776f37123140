"""Fused adapters against PEFT's own forward and backward passes."""

import pytest
import torch
from packed_models import error, gradients_of

from medtune.config.schema import ModelSection
from medtune.config.training import LoraSection
from medtune.model.adapters import attach_new_adapter
from medtune.model.fused.lora_function import fuse_adapters
from medtune.model.loading import ModelFiles, load_base_model
from medtune.model.quantization import dequantized_bytes

TEXT = "What causes gout ? Gout happens when uric acid builds up in the blood."


def build(tiny, *, quantization="none", dtype=torch.float32, fused=True, keep=None, **lora):
    section = ModelSection(base=str(tiny.path), quantization=quantization)
    model = load_base_model(ModelFiles(tiny.path, None), section, device="cpu", dtype="float32")
    model = attach_new_adapter(model, LoraSection(rank=4, **lora), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros in the beginning, which would hide half of the mathematics
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    model = model.to(dtype).train()
    if fused:
        assert fuse_adapters(model, keep_dequantized=keep) == 2 * 7
    return model


def step(model, tiny, **options):
    ids = torch.tensor([tiny.tokenizer(TEXT).input_ids])
    loss = model(input_ids=ids, labels=ids, use_cache=False, **options).loss
    return gradients_of(model, loss)


@pytest.mark.parametrize(
    ("quantization", "dtype", "tolerance"),
    [("none", torch.float64, 1e-12), ("none", torch.float32, 1e-5), ("nf4", torch.float32, 1e-5)],
)
def test_loss_and_gradient_are_pefts(tiny, quantization, dtype, tolerance):
    options = {"quantization": quantization, "dtype": dtype, "alpha": 12}
    loss, gradients = step(build(tiny, **options), tiny)
    expected_loss, expected = step(build(tiny, fused=False, **options), tiny)
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    assert error(gradients, expected) < tolerance
    assert {gradient.dtype for gradient in gradients.values()} == {dtype}


def test_weights_that_stay_dequantised_are_the_same_numbers(tiny):
    loss, gradients = step(build(tiny, quantization="nf4"), tiny)
    kept = build(tiny, quantization="nf4", keep=torch.float32)
    kept_loss, kept_gradients = step(kept, tiny)
    assert kept_loss == loss
    assert all(torch.equal(kept_gradients[name], gradients[name]) for name in gradients)
    projections = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3)
    assert dequantized_bytes(kept, torch.float32) == 4 * projections
    assert dequantized_bytes(kept, torch.bfloat16) == 2 * projections


def test_bfloat16_autocast_is_as_near_as_pefts(tiny):
    _, exact = step(build(tiny), tiny)
    errors = []
    for fused in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            _, gradients = step(build(tiny, fused=fused), tiny)
        errors.append(error(gradients, exact))
        assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    assert errors[0] < 0.03
    assert errors[0] < 1.2 * errors[1]


def test_checkpointing_changes_nothing(tiny):
    plain, checkpointed = build(tiny), build(tiny)
    checkpointed.enable_input_require_grads()
    # transformers 5.23 renamed it.
    enable = getattr(checkpointed, "activation_checkpointing_enable", checkpointed.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    loss, gradients = step(plain, tiny)
    again, recomputed = step(checkpointed, tiny)
    assert again == loss
    assert error(recomputed, gradients) < 1e-6


def test_one_call_does_the_work_of_all_that_share_an_input(tiny):
    model = build(tiny)
    attention = model.base_model.model.model.layers[0].self_attn
    x = torch.randn(1, 5, 64)
    outputs = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
    assert outputs[0].grad_fn is outputs[1].grad_fn is outputs[2].grad_fn
    # Each by itself, on inputs of its own, in any order, gives the same.
    for projection, output in reversed(
        list(zip((attention.q_proj, attention.k_proj, attention.v_proj), outputs, strict=True))
    ):
        assert torch.equal(projection(x.clone()), output)


def test_nothing_waits_behind_once_all_have_been_called(tiny):
    model = build(tiny)
    step(model, tiny)
    layers = model.base_model.model.model.layers
    forwards = [vars(module)["forward"] for layer in layers for module in layer.modules() if "forward" in vars(module)]
    held = [dict(zip(forward.__code__.co_freevars, forward.__closure__, strict=True)) for forward in forwards]
    assert len({id(cells["waiting"]) for cells in held}) == 2 * 4  # query-key-value, output, gate-up, down
    assert all(cells["source"].cell_contents is None and not cells["waiting"].cell_contents for cells in held)


def test_the_base_alone_and_pefts_state_stay_what_they_were(tiny):
    from peft import get_peft_model_state_dict

    fused, plain = build(tiny), build(tiny, fused=False)
    ids = torch.tensor([tiny.tokenizer(TEXT).input_ids])
    with torch.no_grad(), fused.disable_adapter(), plain.disable_adapter():
        assert torch.equal(fused(ids).logits, plain(ids).logits)
    state, expected = get_peft_model_state_dict(fused), get_peft_model_state_dict(plain)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_dropout_keeps_pefts_forward(tiny):
    assert fuse_adapters(build(tiny, fused=False, dropout=0.1)) == 0


def test_biases_of_the_base_are_added(tiny):
    models = [build(tiny, fused=fused) for fused in (True, False)]
    for model in models:
        for name, module in model.named_modules():
            if name.endswith("base_layer"):
                module.bias = torch.nn.Parameter(torch.linspace(-1, 1, module.out_features), requires_grad=False)
    (loss, gradients), (expected_loss, expected) = (step(model, tiny) for model in models)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert error(gradients, expected) < 1e-5
