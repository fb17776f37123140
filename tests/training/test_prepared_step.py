"""A model made ready for its training step, and made to take less where memory runs out; what a training is made of."""

from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import pytest
import torch
from trainings import make_config, make_job, rows

from medtune.config.training import TrainingSection
from medtune.model.adapters import attach_new_adapter
from medtune.model.base_weights import BaseWeights
from medtune.model.host_store import HostMemoryError
from medtune.model.loading import load_base_model, prepare_for_training, resolve_base
from medtune.training import prepared_step
from medtune.training.batching import total_steps
from medtune.training.plan.peaks import GIB
from medtune.training.prepared_step import PreparedStep


def test_the_host_gives_a_share_or_what_is_said(facts):
    facts.memory(free=10 * GIB)
    assert prepared_step.this_machine("cpu", TrainingSection()).host == 6 * GIB
    assert prepared_step.this_machine("cpu", TrainingSection(host_memory_gib=2.5)).host == 2.5 * GIB


def prepare_step(tiny, **training):
    config = make_config(tiny, model={"quantization": "nf4"}, **training)
    base = load_base_model(resolve_base(str(tiny.path)), config.model, device="cpu", dtype="float32")
    model = attach_new_adapter(prepare_for_training(base, "lean"), config.lora, 0)
    return PreparedStep(model, rows(tiny), config, device="cpu", dtype="float32")


def logits(prepared):
    with torch.no_grad():
        return prepared.model(torch.arange(20).unsqueeze(0)).logits


def test_weights_kept_dequantised_can_be_let_go_of(tiny):
    prepared = prepare_step(tiny, weights="dequantized")
    before = logits(prepared)
    kept = [group.base for layer in prepared.layers for group in layer.groups]
    assert all(isinstance(base, BaseWeights) and base.kept is not None for base in kept)
    assert prepared.take_less("device", keep_optimizer=True)
    assert prepared.plan.weights == "nf4"
    assert all(base.kept is None for base in kept)
    torch.testing.assert_close(logits(prepared), before, rtol=1e-5, atol=1e-5)


def test_each_plan_takes_less_than_the_one_before_until_none_is_left(tiny):
    prepared = prepare_step(tiny, checkpointing="none", weights="auto")
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
    prepared = prepare_step(tiny, checkpointing="offload")
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

    prepared = prepare_step(tiny)
    monkeypatch.setattr(prepared_step, "move_embeddings_to_host", refuse)
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
    prepared = prepare_step(tiny, memory_gib=2.0)
    prepared.device = "cuda:0"
    for peak, limit, exceeds in ((1, 3, False), (2.5, 3, True), (2.5, 2, False)):
        plan = replace(prepared.plan, peak_bytes=int(peak * 2**30), limit_bytes=int(limit * 2**30))
        assert prepared._exceeds_new_limit(plan) is exceeds
    prepared.device = "cpu"
    assert not prepared._exceeds_new_limit(replace(prepared.plan, peak_bytes=2**40, limit_bytes=2**40))


@pytest.fixture
def job(tiny, tmp_path):
    config = make_config(tiny, max_steps=None, epochs=2.5)
    return make_job(tiny, tmp_path, config, SimpleNamespace(training=config.training), rows(tiny))


def test_a_job_knows_how_to_train_and_how_long(job):
    assert job.training.effective_batch_rows == 8
    assert job.steps == total_steps(job.training, 24) == round(2.5 * 3)
    assert (job.origin, job.resume_from) == ({}, None)


def test_a_job_does_not_change_while_it_runs(job):
    with pytest.raises(FrozenInstanceError):
        job.seed = 1
