"""Trust tests of the training step: what must not change the trajectory does not, and what must be caught is."""

import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from trainings import assert_same, losses, make_config, rows, train

from medtune.errors import MedtuneError, RunDirError
from medtune.model.adapters import attach_new_adapter
from medtune.model.loading import load_base_model, resolve_base
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.runtime import interruption
from medtune.training import answer_trainer, sft
from medtune.training.checkpoints.sealing import last_checkpoint
from medtune.training.preparation import PreparedStep


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
    """Changing what stands behind a masked label changes nothing; changing a learned one does."""
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


def test_a_bfloat16_adapter_is_refused(tiny):
    model = attach_new_adapter(tiny.load(), make_config(tiny).lora, 0)
    answer_trainer.require_float32_adapter(model)
    next(p for p in model.parameters() if p.requires_grad).data = torch.zeros(1, dtype=torch.bfloat16)
    with pytest.raises(MedtuneError, match="not float32"):
        answer_trainer.require_float32_adapter(model)


def test_a_nan_adapter_is_never_kept(tiny, tmp_path):
    with pytest.raises(MedtuneError, match=r"step 1, .*: the loss is (nan|inf); none of its rows .*_rate"):
        train(tiny, tmp_path, make_config(tiny), adapter=_huge_adapter(tiny, tmp_path))
    assert not list(tmp_path.glob("checkpoints/checkpoint-*"))


def test_a_huge_adapter_is_not_saved_in_a_checkpoint_either(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(answer_trainer.HealthWatch, "trouble", lambda self, reading: None)
    with pytest.raises(MedtuneError, match=r"NaN or infinite weights \(.*lora_A.*\), which are not saved; lower"):
        train(tiny, tmp_path, make_config(tiny), adapter=_huge_adapter(tiny, tmp_path))
    assert not list(tmp_path.glob("checkpoints/checkpoint-*"))


def _huge_adapter(tiny, tmp_path):
    """Finite, or it would not be loaded; its first step is not."""
    model = attach_new_adapter(tiny.load(), make_config(tiny).lora, 0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.fill_(1e30)
    model.save_pretrained(tmp_path / "huge")
    return tmp_path / "huge"


def test_a_signal_in_a_validation_saves_at_once_and_the_validation_is_made_first_on_resuming(
    tiny, tmp_path, monkeypatch
):
    settings = {"max_steps": 6, "epochs": 2, "tokens_per_micro_batch": 64, "early_stopping_patience": 5}
    config = make_config(tiny, **settings)
    whole, history, result = train(tiny, tmp_path / "a", config)
    measured, losses_of, passes = [], answer_trainer.answer_losses, []

    def interrupted(*args, on_rows, **options):
        measured.append(len(passes))

        def watched(rows):
            passes.append(rows)
            if len(measured) == 2:
                signal.raise_signal(signal.SIGTERM)
            on_rows(rows)

        return losses_of(*args, on_rows=watched, **options)

    monkeypatch.setattr(answer_trainer, "answer_losses", interrupted)
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        train(tiny, tmp_path / "b", config)
    # Stopped after one pass of several.
    assert len(passes) == measured[1] + 1 < 2 * measured[1]
    checkpoint = last_checkpoint(RunDir(tmp_path / "b"))
    assert checkpoint.name == "checkpoint-4"
    monkeypatch.undo()
    resumed, other, again = train(tiny, tmp_path / "b", config, resume_from=checkpoint)
    assert [{**entry, "tokens_per_second": 0} for entry in history] == [
        {**entry, "tokens_per_second": 0} for entry in other
    ]
    assert_same(whole, resumed, rtol=0, atol=0)
    assert (result.best_step, result.validation_loss) == (again.best_step, again.validation_loss)


def stopped_in_validation(tiny, tmp_path, monkeypatch, config, number, *, resume_from=None):
    """A training whose validation of that number, from one, is stopped by a signal."""
    measured, losses_of = [], answer_trainer.answer_losses

    def interrupted(*args, on_rows, **options):
        measured.append(None)

        def watched(rows):
            if len(measured) == number:
                signal.raise_signal(signal.SIGTERM)
            on_rows(rows)

        return losses_of(*args, on_rows=watched, **options)

    with monkeypatch.context() as patch:
        patch.setattr(answer_trainer, "answer_losses", interrupted)
        with interruption.handled(), pytest.raises(interruption.Interrupted):
            train(tiny, tmp_path, config, resume_from=resume_from)


def timeless(history):
    return [{**entry, "tokens_per_second": 0} for entry in history]


def test_the_owed_validation_may_be_stopped_too(tiny, tmp_path, monkeypatch):
    config = make_config(tiny, max_steps=4, epochs=2, keep="last", lora={"dropout": 0.1})
    whole, history, _ = train(tiny, tmp_path / "a", config)
    stopped_in_validation(tiny, tmp_path / "b", monkeypatch, config, 1)
    checkpoint = last_checkpoint(RunDir(tmp_path / "b"))
    seal = (checkpoint / "sealed.json").stat().st_mtime_ns
    stopped_in_validation(tiny, tmp_path / "b", monkeypatch, config, 1, resume_from=checkpoint)
    assert (checkpoint / "sealed.json").stat().st_mtime_ns == seal
    # Killed after the validation that was owed: it is made once more, and stands once in the history.
    with monkeypatch.context() as patch:
        patch.setattr(answer_trainer.AnswerTrainer, "training_step", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tiny, tmp_path / "b", config, resume_from=checkpoint)
    assert "validation_loss" in RunDir(tmp_path / "b").read_history()[-1]
    resumed, other, _ = train(tiny, tmp_path / "b", config, resume_from=checkpoint)
    assert timeless(other) == timeless(history)
    assert_same(whole, resumed, rtol=0, atol=0)


def test_the_owed_validation_may_end_the_training(tiny, tmp_path, monkeypatch):
    # The first validation stays the best: the second ends the training.
    settings = {"learning_rate": 0.3, "max_steps": 8, "checkpoint_steps": 1, "schedule": "constant", "epochs": 3}
    config = make_config(tiny, early_stopping_patience=1, **settings)
    whole, history, result = train(tiny, tmp_path / "a", config)
    assert (result.steps, result.best_step) == (2, 1)
    stopped_in_validation(tiny, tmp_path / "b", monkeypatch, config, 2)
    checkpoint = last_checkpoint(RunDir(tmp_path / "b"))
    assert checkpoint.name == "checkpoint-2"
    resumed, other, again = train(tiny, tmp_path / "b", config, resume_from=checkpoint)
    assert timeless(other) == timeless(history)
    assert_same(whole, resumed, rtol=0, atol=0)
    assert (again.steps, again.best_step, again.validation_loss) == (2, 1, result.validation_loss)


@pytest.mark.parametrize("gone", [True, False])
def test_without_its_best_checkpoint_a_training_does_not_end_with_another(tiny, tmp_path, gone):
    settings = {"learning_rate": 0.3, "max_steps": 3, "checkpoint_steps": 1, "schedule": "constant"}
    config = make_config(tiny, keep_checkpoints=9, **settings)
    _, _, result = train(tiny, tmp_path, config)
    assert result.best_step == 1
    best = tmp_path / "checkpoints" / "checkpoint-1"
    if gone:
        shutil.rmtree(best)
    else:
        file = best / "adapter_model.safetensors"
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    with pytest.raises(RunDirError, match=r"checkpoint-1: the best checkpoint so far is torn or gone \(.*; restore it"):
        train(tiny, tmp_path, config, resume_from=tmp_path / "checkpoints" / "checkpoint-2")


# On a CPU bitsandbytes keeps the state where it is, and says so; its 8 bits begin with matrices of 4,096 numbers.
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")
@pytest.mark.parametrize(("optimizer", "rank"), [("auto", 4), ("paged_adamw_8bit", 64)])
def test_resumed_training_equals_the_uninterrupted_one(tiny, tmp_path, optimizer, rank):
    settings = {"max_steps": 6, "checkpoint_steps": 2, "keep_checkpoints": 9, "keep": "last", "epochs": 2}
    config = make_config(tiny, lora={"rank": rank}, optimizer=optimizer, **settings)
    whole, history, _ = train(tiny, tmp_path / "a", config)
    checkpoint = tmp_path / "a" / "checkpoints" / "checkpoint-2"
    again, resumed, _ = train(tiny, tmp_path / "a", config, resume_from=checkpoint)
    assert losses(resumed) == losses(history)
    assert losses(resumed, "learning_rate") == losses(history, "learning_rate")
    assert [entry["step"] for entry in resumed] == [entry["step"] for entry in history]
    assert [entry.get("tokens") for entry in resumed] == [entry.get("tokens") for entry in history]
    assert_same(whole, again, atol=0, rtol=0)


def test_keep_best_takes_the_best_validation_loss(tiny, tmp_path):
    # A rate so high that the second step undoes the first.
    options = {"learning_rate": 0.3, "max_steps": 2, "checkpoint_steps": 1, "schedule": "constant"}
    _, history, result = train(tiny, tmp_path / "a", make_config(tiny, **options))
    validation = losses(history, "validation_loss")
    assert validation[0] < validation[1]
    assert (result.best_step, result.validation_loss) == (1, validation[0])
    last, history, result = train(tiny, tmp_path / "b", make_config(tiny, keep="last", **options))
    assert result.validation_loss == losses(history, "validation_loss")[1]
    stored = load_file(tmp_path / "b" / "checkpoints" / "checkpoint-2" / "adapter_model.safetensors")
    assert sorted(float(v.sum()) for v in stored.values()) == sorted(float(v.sum()) for v in last.values())


def test_early_stopping(tiny, tmp_path):
    # Too small a rate to move a weight: the loss of the first validation stays the best, on any hardware.
    options = {"learning_rate": 1e-30, "max_steps": 30, "checkpoint_steps": 1, "schedule": "constant"}
    _, history, result = train(tiny, tmp_path, make_config(tiny, early_stopping_patience=2, **options))
    assert result.steps == 3
    assert history[-1]["step"] == result.steps


def test_checkpoints_are_limited(tiny, tmp_path):
    train(tiny, tmp_path, make_config(tiny, max_steps=4, checkpoint_steps=1, keep_checkpoints=1, keep="last"))
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-4"]


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
    run = RunDir(tmp_path / "gpu")
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cuda:0", dtype=dtype)
    model = attach_new_adapter(base, config.lora, config.seed)
    prepared = PreparedStep(model, rows(tiny), config, device="cuda:0", dtype=dtype)
    validation = rows(tiny, 6, start=100)
    sft.train_adapter(
        model, tiny.tokenizer, rows(tiny), validation, config=config, run=run, dtype=dtype, prepared=prepared
    )
    _, exact, _ = train(tiny, tmp_path / "cpu", make_config(tiny))
    assert losses(run.read_history()) == pytest.approx(losses(exact), rel=0.03)
