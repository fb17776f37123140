"""What will not fit is found before the first step, and leaves no trace in the training."""

import pytest
import torch
from trainings import assert_same, losses, make_config, make_job, room_for, rows, train

from medtune.errors import MedtuneError
from medtune.inference import scoring
from medtune.model.adapters import attach_new_adapter
from medtune.model.fused.layers import FusedLayer
from medtune.model.loading import load_base_model, prepare_for_training, resolve_base
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.training import answer_trainer, sft, validating_trainer
from medtune.training.checkpoints.contents import restore_plan
from medtune.training.prepared_step import PreparedStep
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

    monkeypatch.setattr(validating_trainer, "sums_if_they_fit", limited)
    monkeypatch.setattr(scoring, "sums_if_they_fit", limited)
    train(tiny, tmp_path, make_config(tiny, tokens_per_micro_batch=100_000))
    assert tried[0] > 200
    # Found before the first step: no validation of the training itself has to make do with less.
    fitting = [size <= 200 for size in tried]
    assert fitting == sorted(fitting)


def gpu_training(tiny, tmp_path, config, *, resume_from=None, dtype="float16"):
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cuda:0", dtype=dtype)
    model = attach_new_adapter(prepare_for_training(base, "lean"), config.lora, config.seed)
    prepared = PreparedStep(model, rows(tiny), config, device="cuda:0", dtype=dtype)
    job = make_job(tiny, tmp_path, config, prepared, rows(tiny), dtype=dtype, resume_from=resume_from)
    _, result = sft.train_adapter(job)
    return job.run.read_history(), result, prepared


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
