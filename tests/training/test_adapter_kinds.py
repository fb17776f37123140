"""Every kind of adapter that is trained here, step by step beside PEFT's own modules and plain autograd."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from trainings import losses, make_config, rows, train

from medtune.model.adapters import attach_adapter, attach_new_adapter
from medtune.model.first_weights import first_weights, save_adapter
from medtune.model.loading import load_base_model, resolve_base

STEPS, RATE = 3, 0.05
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What a recipe says, and what PEFT is told.
KINDS = {
    "rslora": ({"rslora": True}, {"use_rslora": True}),
    "dora": ({"dora": True}, {"use_dora": True}),
    "layers": ({"layers": [1]}, {"layers_to_transform": [1]}),
    "a pattern": ({"targets": r".*\.mlp\.\w+_proj"}, {"target_modules": r".*\.mlp\.\w+_proj"}),
    "all linear layers": ({"targets": "all-linear"}, {"target_modules": "all-linear"}),
    "ranks and scales by pattern": (
        {"rank_pattern": {r"layers\.1\..*q_proj": 2, "down_proj": 6}, "alpha_pattern": {r".*\.0\.mlp\.up_proj": 3.0}},
        {"rank_pattern": {r"layers\.1\..*q_proj": 2, "down_proj": 6}, "alpha_pattern": {r".*\.0\.mlp\.up_proj": 3.0}},
    ),
    "whole modules": (
        {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
        {"modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    ),
    "pissa": ({"init": "pissa"}, {"init_lora_weights": "pissa"}),
}


def config_of(tiny, lora, **training):
    settings = {"effective_batch_rows": 24, "max_steps": STEPS, "checkpoint_steps": STEPS, "learning_rate": RATE}
    settings |= {"optimizer": "sgd", "schedule": "constant", "warmup_ratio": 0.0, "max_grad_norm": 1e9, "keep": "last"}
    return make_config(tiny, lora=lora, model={"quantization": "none"}, **{**settings, **training})


def by_peft_alone(tiny, peft_options, seed):
    """Losses and weights of the same steps: rows one by one, whole logits, torch's own optimiser."""
    base = load_base_model(resolve_base(str(tiny.path)), config_of(tiny, {}).model, device="cpu", dtype="float32")
    torch.manual_seed(seed)
    options = {"r": 4, "lora_alpha": 16, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **peft_options}
    model = get_peft_model(base, LoraConfig(**options)).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    total, found = sum(label != -100 for row in rows(tiny) for label in row.labels), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        found.append(0.0)
        for row in rows(tiny):
            logits = model(torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum") / total
            loss.backward()
            found[-1] += loss.item()
        optimizer.step()
    return found, {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
def test_trained_beside_peft_alone(tiny, tmp_path, kind, capsys):
    lora, peft_options = KINDS[kind]
    config = config_of(tiny, lora)
    expected, theirs = by_peft_alone(tiny, peft_options, config.seed)
    weights, history, _ = train(tiny, tmp_path, config)
    assert losses(history) == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] - 1e-3
    assert weights.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-5, rtol=1e-4)
    said = capsys.readouterr().err
    assert ("fused into 2 decoder layers" in said) == (kind not in ("dora", "whole modules"))
    assert ("by PEFT's own modules, for lora.dora" in said) == (kind == "dora")


@pytest.mark.parametrize("lora", [{"layers": [1], "rslora": True}, {"rank_pattern": {"down_proj": 6}}], ids=str)
def test_layers_without_adapters_compute_again_to_the_same_end(tiny, tmp_path, lora):
    kept, history, _ = train(tiny, tmp_path / "a", config_of(tiny, lora))
    again, other, _ = train(tiny, tmp_path / "b", config_of(tiny, lora, checkpointing="all"))
    assert losses(history) == pytest.approx(losses(other), rel=1e-6)
    for name, weight in kept.items():
        torch.testing.assert_close(again[name], weight, atol=1e-6, rtol=1e-5)


def test_a_pissa_adapter_is_saved_for_the_untouched_base(tiny, tmp_path):
    config = config_of(tiny, {"init": "pissa", "rslora": True})
    model = attach_new_adapter(tiny.load(), config.lora, 0)
    start = first_weights(model, config.lora)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.02
    ids = torch.arange(5, 25).unsqueeze(0)
    expected, untouched = model(ids).logits, tiny.load()(ids).logits
    save_adapter(model, tmp_path, start)
    torch.testing.assert_close(model(ids).logits, expected)
    # Ours, and PEFT's own loading on a base that nobody changed.
    ours, theirs = (
        attach_adapter(tiny.load(), tmp_path, trainable=False),
        PeftModel.from_pretrained(tiny.load(), tmp_path),
    )
    for loaded in (ours, theirs):
        assert loaded.peft_config["default"].r == 8
        torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, untouched, atol=1e-2)
