"""What will not fit is found before the first step, and leaves no trace in the training."""

from dataclasses import replace

import pytest
import torch
from trainings import assert_same, losses, make_config, room_for, rows, train

from medtune.errors import MedtuneError
from medtune.inference import scoring
from medtune.model.adapters import attach_new_adapter
from medtune.model.base_weights import BaseWeights
from medtune.model.fused.layers import FusedLayer
from medtune.model.host_store import HostMemoryError
from medtune.model.loading import load_base_model, prepare_for_training, resolve_base
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.training import answer_trainer, preparation, sft
from medtune.training.plan.kept_plan import restore_plan
from medtune.training.preparation import PreparedStep
from medtune.training.rehearsal import longest_pass, rehearse


def row(length):
    return EncodedRow(str(length), [1] * length, [1] * length)


def test_the_longest_pass_is_that_with_the_most_tokens_then_with_the_longest_row():
    train_rows = [row(length) for length in (10, 20, 30, 40, 50, 60)]
    assert [one.id for one in longest_pass(train_rows, [[0, 1, 2], [3, 0]], 1000)] == ["10", "20", "30"]
    assert [one.id for one in longest_pass(train_rows, [[0, 1, 2], [0, 4]], 1000)] == ["10", "50"]
    assert [one.id for one in longest_pass(train_rows, [[0, 1, 2], [5, 1]], 45)] == ["60"]


@pytest.fixture
def rehearsed(monkeypatch):
    """Training with a rehearsal, as it is on a GPU."""
    train_for_real = answer_trainer.AnswerTrainer.train

    def rehearse_first(self, *args, **options):
        rehearse(self)
        return train_for_real(self, *args, **options)

    monkeypatch.setattr(answer_trainer.AnswerTrainer, "train", rehearse_first)


def test_a_rehearsal_leaves_no_trace(tiny, tmp_path, rehearsed, monkeypatch):
    after, history, _ = train(tiny, tmp_path / "a", make_config(tiny, lora={"dropout": 0.1}))
    monkeypatch.undo()
    plain, other, _ = train(tiny, tmp_path / "b", make_config(tiny, lora={"dropout": 0.1}))
    assert losses(history) == losses(other)
    assert [entry.get("tokens") for entry in history] == [entry.get("tokens") for entry in other]
    assert_same(after, plain, rtol=0, atol=0)


def test_a_batch_too_large_is_found_in_the_rehearsal_and_one_that_fits_is_settled_on(
    tiny, tmp_path, rehearsed, monkeypatch, capsys
):
    config = make_config(tiny, tokens_per_micro_batch=100_000, checkpointing="auto")
    _, history, _ = train(tiny, tmp_path / "a", config)
    tried = room_for(monkeypatch, 300)
    _, other, result = train(tiny, tmp_path / "b", config)
    assert result.times_out_of_memory >= 1
    assert tried[0] > 300
    # Once a pass has fitted in the rehearsal, every pass of the training does.
    fitting = [size <= 300 for size in tried]
    assert fitting == sorted(fitting)
    assert losses(history) == pytest.approx(losses(other), rel=1e-5)
    assert [entry.get("tokens") for entry in history] == [entry.get("tokens") for entry in other]
    assert restore_plan(RunDir(tmp_path / "b")).tokens_per_micro_batch <= 300
    said = capsys.readouterr().err
    assert "out of GPU memory in the rehearsal; from now on passes of up to" in said
    assert "no row is left out" in said


def test_what_fits_by_no_plan_is_told_before_the_first_step(tiny, tmp_path, rehearsed, monkeypatch):
    room_for(monkeypatch, 0)
    with pytest.raises(MedtuneError, match=r"ran out of GPU memory in the rehearsal .*no other plan takes less; lower"):
        train(tiny, tmp_path, make_config(tiny))
    assert not losses(RunDir(tmp_path).read_history())


def test_a_validation_batch_too_large_is_found_too(tiny, tmp_path, rehearsed, monkeypatch):
    fits, tried = scoring.sums_if_they_fit, []

    def limited(model, batch):
        tried.append(sum(len(row.input_ids) for row in batch))
        return fits(model, batch) if tried[-1] <= 200 else None

    monkeypatch.setattr(answer_trainer, "sums_if_they_fit", limited)
    monkeypatch.setattr(scoring, "sums_if_they_fit", limited)
    train(tiny, tmp_path, make_config(tiny, tokens_per_micro_batch=100_000))
    assert tried[0] > 200
    # Found before the first step: no validation of the training itself has to make do with less.
    fitting = [size <= 200 for size in tried]
    assert fitting == sorted(fitting)


def prepared_step(tiny, **training):
    config = make_config(tiny, model={"quantization": "nf4"}, **training)
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cpu", dtype="float32")
    model = attach_new_adapter(prepare_for_training(base, "lean"), config.lora, 0)
    return PreparedStep(model, rows(tiny), config, device="cpu", dtype="float32")


def logits(prepared):
    with torch.no_grad():
        return prepared.model(torch.arange(20).unsqueeze(0)).logits


def test_weights_kept_dequantised_can_be_let_go_of(tiny):
    prepared = prepared_step(tiny, weights="dequantized")
    before = logits(prepared)
    kept = [group.base for layer in prepared.layers for group in layer.groups]
    assert all(isinstance(base, BaseWeights) and base.kept is not None for base in kept)
    assert prepared.take_less("device", keep_optimizer=True)
    assert prepared.plan.weights == "nf4"
    assert all(base.kept is None for base in kept)
    torch.testing.assert_close(logits(prepared), before, rtol=1e-5, atol=1e-5)


def test_each_plan_takes_less_than_the_one_before_until_none_is_left(tiny):
    prepared = prepared_step(tiny, checkpointing="none", weights="auto")
    peaks = [prepared.plan.peak_bytes]
    while prepared.take_less("device", keep_optimizer=True):
        peaks.append(prepared.plan.peak_bytes)
        assert prepared.plan.optimizer == "adamw_torch_fused"
        assert [layer.recompute for layer in prepared.layers] == [
            number < prepared.plan.checkpointed_layers for number in range(2)
        ]
    assert len(peaks) > 1
    assert peaks == sorted(peaks, reverse=True)
    assert len(set(peaks)) == len(peaks)


def test_host_memory_that_cannot_be_had_is_asked_for_less_until_none_is(tiny):
    prepared = prepared_step(tiny, checkpointing="offload")
    # As on a GPU, whose layers' inputs wait on the host; plans are all that is made here.
    prepared.machine = replace(prepared.machine, offloads=True, host=2**30)
    prepared._follow = lambda: None
    prepared.plan = prepared._planned(prepared.training)
    assert prepared.plan.offloaded_layers == 2
    waiting = [prepared._host_bytes()]
    while prepared.take_less("host", keep_optimizer=True):
        waiting.append(prepared._host_bytes())
        assert len(waiting) < 50
    assert waiting == sorted(set(waiting), reverse=True)
    assert waiting[-1] == 0


def test_embeddings_stay_where_host_memory_cannot_be_had(tiny, monkeypatch, capsys):
    def refuse(model):
        raise HostMemoryError("1.00 GiB of host memory cannot be page-locked (CUDA error 2); free host memory")

    prepared = prepared_step(tiny)
    monkeypatch.setattr(preparation, "move_embeddings_to_host", refuse)
    prepared.plan = replace(prepared.plan, embeddings="host")
    prepared._follow()
    assert prepared.plan.embeddings == "device"
    assert "embeddings stay on the device: 1.00 GiB of host memory" in capsys.readouterr().err
    prepared.take_less("device", keep_optimizer=True)
    assert prepared.plan.embeddings == "device"


def test_a_training_that_goes_on_keeps_its_optimiser(tiny):
    config = make_config(tiny)
    model = attach_new_adapter(tiny.load(), config.lora, 0)
    began = PreparedStep(model, rows(tiny), config, device="cpu", dtype="float32").plan
    kept = replace(began, optimizer="adamw_torch", peak_bytes=2**40)
    model = attach_new_adapter(tiny.load(), config.lora, 0)
    prepared = PreparedStep(model, rows(tiny), config, device="cpu", dtype="float32", plan=kept)
    assert prepared.take_less("device", keep_optimizer=False)
    assert prepared.plan.optimizer == "adamw_torch"


def test_a_plan_is_kept_unless_the_memory_was_set_lower_since(tiny):
    prepared = prepared_step(tiny, memory_gib=2.0)
    prepared.device = "cuda:0"
    for peak, limit, exceeds in ((1, 3, False), (2.5, 3, True), (2.5, 2, False)):
        plan = replace(prepared.plan, peak_bytes=int(peak * 2**30), limit_bytes=int(limit * 2**30))
        assert prepared._exceeds_new_limit(plan) is exceeds
    prepared.device = "cpu"
    assert not prepared._exceeds_new_limit(replace(prepared.plan, peak_bytes=2**40, limit_bytes=2**40))


def gpu_training(tiny, tmp_path, config, *, resume_from=None, dtype="float16"):
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cuda:0", dtype=dtype)
    model = attach_new_adapter(prepare_for_training(base, "lean"), config.lora, config.seed)
    prepared = PreparedStep(model, rows(tiny), config, device="cuda:0", dtype=dtype)
    run = RunDir(tmp_path)
    model, result = sft.train_adapter(
        model, tiny.tokenizer, rows(tiny), rows(tiny, 6, start=100),
        config=config, run=run, dtype=dtype, prepared=prepared, resume_from=resume_from,
    )  # fmt: skip
    return run.read_history(), result, prepared


@pytest.mark.gpu
def test_gpu_a_step_whose_inputs_wait_on_the_host_is_made_again(tiny, tmp_path, monkeypatch):
    settings = {"checkpointing": "offload", "tokens_per_micro_batch": 128, "weights": "nf4"}
    config = make_config(tiny, model={"quantization": "nf4"}, **settings)
    history, _, prepared = gpu_training(tiny, tmp_path / "a", config)
    assert prepared.plan.offloaded_layers == 2
    backward, calls = FusedLayer.backward, []

    def limited(self, *args, **options):
        calls.append(self)
        if len(calls) == 8:  # beyond the rehearsal's, when one layer's input has come back and one waits
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return backward(self, *args, **options)

    monkeypatch.setattr(FusedLayer, "backward", limited)
    other, result, _ = gpu_training(tiny, tmp_path / "b", config)
    assert result.times_out_of_memory == 1
    assert losses(history) == pytest.approx(losses(other), rel=5e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", ["adamw_torch_fused", "paged_adamw_8bit"])
def test_gpu_float16_training_goes_on_as_if_it_had_not_stopped(tiny, tmp_path, optimizer):
    """Optimiser, schedule, scaler and place in the data come back; up to the GPU's own noise."""
    config = make_config(
        tiny, max_steps=6, checkpoint_steps=2, keep_checkpoints=9, keep="last", epochs=2, optimizer=optimizer
    )
    history, _, _ = gpu_training(tiny, tmp_path, config)
    whole = [(entry["loss"], entry["grad_norm"]) for entry in history if "loss" in entry]
    resumed, _, _ = gpu_training(tiny, tmp_path, config, resume_from=tmp_path / "checkpoints" / "checkpoint-4")
    again = [(entry["loss"], entry["grad_norm"]) for entry in resumed if "loss" in entry]
    assert len(again) == len(whole) == 6
    for (loss, norm), (other_loss, other_norm) in zip(whole[4:], again[4:], strict=True):
        assert loss == pytest.approx(other_loss, rel=1e-3)
        assert norm == pytest.approx(other_norm, rel=2e-2)
