"""Trust tests of the training step: what must not change the trajectory does not, and what must be caught is."""

import json

import pytest
import torch
from safetensors.torch import load_file
from trainings import assert_same, losses, make_config, make_job, rows, train

from medtune.model.adapters import attach_new_adapter
from medtune.model.loading import load_base_model, resolve_base
from medtune.records import EncodedRow
from medtune.training import answer_trainer, sft
from medtune.training.prepared_step import PreparedStep


def test_one_pass_of_eight_rows_equals_eight_passes_of_one(tiny, tmp_path):
    together, history, _ = train(tiny, tmp_path / "a", make_config(tiny, tokens_per_micro_batch=100_000))
    apart, other, _ = train(tiny, tmp_path / "b", make_config(tiny, tokens_per_micro_batch=16))
    assert losses(history) == pytest.approx(losses(other), rel=1e-5)
    assert losses(history, "grad_norm") == pytest.approx(losses(other, "grad_norm"), rel=1e-4)
    assert losses(history, "validation_loss") == pytest.approx(losses(other, "validation_loss"), rel=1e-5)
    # By norms: Adam divides by a gradient's size, so that one which is all but rounding moves its weight either way.
    assert together.keys() == apart.keys()
    for name, weight in together.items():
        assert (weight - apart[name]).norm() < 5e-4 * weight.norm()
    assert losses(history)[-1] < losses(history)[0]


def test_first_gradient_is_the_token_weighted_mean_over_the_step(tiny, tmp_path):
    """Against plain autograd: rows by themselves, summed, divided by the answer tokens of all."""
    config = make_config(tiny, max_steps=1, checkpoint_steps=1, max_grad_norm=1e9, effective_batch_rows=24)
    _, history, _ = train(tiny, tmp_path, config)
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cpu", dtype="float32")
    model = attach_new_adapter(base, config.lora, config.seed)
    total = sum(label != -100 for row in rows(tiny) for label in row.labels)
    loss = torch.zeros(())
    for row in rows(tiny):
        logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
        loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum")
    (loss / total).backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert losses(history)[0] == pytest.approx(loss.item() / total, rel=1e-5)
    assert losses(history, "grad_norm")[0] == pytest.approx(norm.item(), rel=1e-4)


def test_every_module_trains_from_the_first_step_on(tiny, tmp_path, monkeypatch):
    """The base comes in evaluation mode, in which transformers' own layers would keep everything."""
    compute_loss, modes = answer_trainer.AnswerTrainer.compute_loss, []

    def watched(self, model, *args, **options):
        modes.append({module.training for module in model.modules()})
        return compute_loss(self, model, *args, **options)

    monkeypatch.setattr(answer_trainer.AnswerTrainer, "compute_loss", watched)
    train(tiny, tmp_path, make_config(tiny))
    assert modes == [{True}] * 4


def test_modules_hear_as_often_of_training_whatever_a_step_takes(tiny, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(torch.nn.Embedding, "train", lambda self, mode=True: told.append(mode))
    counts = []
    for tokens in (64, 4096):
        train(tiny, tmp_path / str(tokens), make_config(tiny, tokens_per_micro_batch=tokens))
        counts.append(len(told))
        told.clear()
    assert counts[0] == counts[1]


def test_gradient_checkpointing_changes_nothing(tiny, tmp_path):
    plain, history, _ = train(tiny, tmp_path / "a", make_config(tiny))
    saving, other, _ = train(tiny, tmp_path / "b", make_config(tiny, checkpointing="all"))
    assert losses(history) == pytest.approx(losses(other), rel=1e-6)
    assert_same(plain, saving, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"checkpointing": "offload"},
        {"checkpointing": 1},
        {"embeddings": "host"},
        {"weights": "nf4"},
        {"weights": "dequantized"},
        {"fused_adapters": False, "checkpointing": "all"},
        {"memory_gib": 1.0},
    ],
)
def test_every_way_to_compute_a_step_trains_alike(tiny, tmp_path, options):
    plain, history, _ = train(tiny, tmp_path / "a", make_config(tiny))
    other, again, _ = train(tiny, tmp_path / "b", make_config(tiny, **options))
    assert losses(history) == pytest.approx(losses(again), rel=1e-5)
    assert_same(plain, other, atol=2e-4, rtol=1e-2)


def test_a_planted_leak_across_rows_shows_in_the_trajectory(tiny, tmp_path, monkeypatch):
    """The comparison of 1 x 8 and 8 x 1 is what catches attention that crosses rows."""
    from medtune.model.attention import RowBounds, attend_rows
    from medtune.model.fused import layers as fused_layers

    def leaking(query, key, value, rows, **options):
        whole = RowBounds(torch.tensor([0, len(query)]), len(query), (0, len(query)))
        return attend_rows(query, key, value, whole, **options)

    monkeypatch.setattr(fused_layers, "attend_rows", leaking)
    _, history, _ = train(tiny, tmp_path / "a", make_config(tiny, tokens_per_micro_batch=100_000))
    _, other, _ = train(tiny, tmp_path / "b", make_config(tiny, tokens_per_micro_batch=16))
    assert losses(history) != pytest.approx(losses(other), rel=1e-3)


def test_a_wrong_mask_shows_in_the_loss(tiny, tmp_path):
    """Rows that also learn their prompts give another loss than the renderer's labels."""
    right = rows(tiny)
    wrong = [EncodedRow(row.id, row.input_ids, list(row.input_ids)) for row in right]
    _, history, _ = train(tiny, tmp_path / "a", make_config(tiny, max_steps=1, checkpoint_steps=1), train_rows=right)
    _, other, _ = train(tiny, tmp_path / "b", make_config(tiny, max_steps=1, checkpoint_steps=1), train_rows=wrong)
    assert losses(history)[0] != pytest.approx(losses(other)[0], rel=1e-3)


def test_prompt_tokens_carry_no_gradient(tiny):
    """Changing the token under a masked label changes nothing; changing a learned one does."""
    from medtune.inference.scoring import answer_losses
    from medtune.model.answer_loss import add_answer_loss

    model = tiny.load()
    add_answer_loss(model)
    row = rows(tiny, 1)[0]
    labels = list(row.labels)
    assert labels[: row.prompt_length] == [-100] * row.prompt_length
    (before,) = answer_losses(model, [row], tokens_per_batch=512)
    labels[row.prompt_length] = -100
    (after,) = answer_losses(model, [EncodedRow("x", row.input_ids, labels)], tokens_per_batch=512)
    assert after.tokens == before.tokens - 1
    assert after.nll < before.nll


@pytest.mark.parametrize("preparation", ["lean", "peft"])
def test_adapters_stay_float32_and_keep_their_first_weights(tiny, tmp_path, preparation):
    """TRL rounds the adapters of a 4-bit model to bfloat16 while it is built; ours come back unrounded."""
    config = make_config(tiny, model={"kbit_preparation": preparation}, max_steps=1, checkpoint_steps=1)
    config = config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": 1e-30})})
    trained, _, _ = train(tiny, tmp_path, config)
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cpu", dtype="float32")
    fresh = attach_new_adapter(base, config.lora, config.seed)
    assert all(value.dtype == torch.float32 for value in trained.values())
    assert_same(trained, {n: p.detach() for n, p in fresh.named_parameters() if p.requires_grad}, atol=1e-12, rtol=0)
    saved = load_file(next((tmp_path / "checkpoints").glob("checkpoint-*")) / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}


def test_early_stopping(tiny, tmp_path):
    # Too small a rate to move a weight: the loss of the first validation stays the best, on any hardware.
    options = {"learning_rate": 1e-30, "max_steps": 30, "checkpoint_steps": 1, "schedule": "constant"}
    _, history, result = train(tiny, tmp_path, make_config(tiny, early_stopping_patience=2, **options))
    assert result.steps == 3
    assert history[-1]["step"] == result.steps


def test_tensorboard(tiny, tmp_path):
    train(tiny, tmp_path, make_config(tiny, max_steps=1, report_to=["tensorboard"]))
    assert list((tmp_path / "training" / "tensorboard").glob("events.*"))


def test_history_and_schedule(tiny, tmp_path):
    config = make_config(tiny, max_steps=4, warmup_ratio=0.5, checkpoint_steps=2)
    _, history, result = train(tiny, tmp_path, config)
    steps = [entry for entry in history if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4]
    rates = [entry["learning_rate"] for entry in steps]
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-1] < rates[-2]
    assert steps[-1]["tokens"] == result.tokens
    assert all(entry["tokens_per_second"] > 0 for entry in steps)
    expected = sum(len(row.input_ids) for row in rows(tiny))
    assert steps[2]["tokens"] == expected  # three steps of eight rows are the whole epoch of 24
    lines = (tmp_path / "training" / "history.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)


def test_bfloat16_autocast_trains_on_a_cpu(tiny, tmp_path):
    _, history, _ = train(tiny, tmp_path / "a", make_config(tiny), dtype="bfloat16")
    _, exact, _ = train(tiny, tmp_path / "b", make_config(tiny))
    assert losses(history) == pytest.approx(losses(exact), rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gpu_training_follows_the_cpu(tiny, tmp_path, dtype):
    config = make_config(tiny, optimizer="paged_adamw_8bit")
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cuda:0", dtype=dtype)
    model = attach_new_adapter(base, config.lora, config.seed)
    prepared = PreparedStep(model, rows(tiny), config, device="cuda:0", dtype=dtype)
    job = make_job(tiny, tmp_path / "gpu", config, prepared, rows(tiny), dtype=dtype)
    sft.train_adapter(job)
    _, exact, _ = train(tiny, tmp_path / "cpu", make_config(tiny))
    assert losses(job.run.read_history()) == pytest.approx(losses(exact), rel=0.03)
