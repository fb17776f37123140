"""A step that runs out of memory is made again in less, by the same rows and with the same gradient."""

import pytest
import torch
from trainings import losses, make_config, room_for, train

from medtune.errors import MedtuneError
from medtune.model.fused.layers import FusedLayer
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.contents import restore_plan


def out_of_memory_at(monkeypatch, *failing):
    """The GPU runs out of memory in these calls of a layer's backward pass, counted from one."""
    backward, calls = FusedLayer.backward, []

    def limited(self, *args, **options):
        calls.append(self)
        if len(calls) in failing:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 228.00 MiB.")
        return backward(self, *args, **options)

    monkeypatch.setattr(FusedLayer, "backward", limited)
    return calls


def test_a_step_out_of_memory_is_made_again_in_less(tiny, tmp_path, monkeypatch, capsys):
    plain, history, result = train(tiny, tmp_path / "a", make_config(tiny, tokens_per_micro_batch=64))
    assert result.times_out_of_memory == 0
    # In the second pass of a step, when gradients of the first are there; the last layer's backward pass comes first.
    calls = out_of_memory_at(monkeypatch, 4)
    saving, other, result = train(tiny, tmp_path / "b", make_config(tiny, tokens_per_micro_batch=64))
    assert result.times_out_of_memory == 1
    assert losses(history) == pytest.approx(losses(other), rel=1e-5)
    assert losses(history, "grad_norm") == pytest.approx(losses(other, "grad_norm"), rel=1e-4)
    assert [entry["tokens"] for entry in history if "tokens" in entry] == [
        entry["tokens"] for entry in other if "tokens" in entry
    ]
    for name, weight in plain.items():
        assert (weight - saving[name]).norm() < 1e-3 * weight.norm()
    assert all(layer.recompute for layer in set(calls))
    said = capsys.readouterr()
    assert "out of GPU memory at step 1; from now on passes of up to" in said.out + said.err
    # The plan that a training went on by is the one that it resumes by.
    kept = restore_plan(RunDir(tmp_path / "b"))
    assert (kept.checkpointed_layers, kept.weights) == (2, "nf4")


def test_memory_that_never_suffices_is_one_clear_line(tiny, tmp_path, monkeypatch):
    out_of_memory_at(monkeypatch, *range(100))
    with pytest.raises(MedtuneError, match=r"out of GPU memory at step 1 \(CUDA out .*no other plan takes less; lower"):
        train(tiny, tmp_path, make_config(tiny))


def test_after_memory_ran_out_rows_are_split_by_the_new_budget(tiny, tmp_path, monkeypatch):
    """The step in hand had been split by the old one."""
    config = make_config(tiny, tokens_per_micro_batch=100_000, checkpointing="auto")
    _, history, _ = train(tiny, tmp_path / "a", config)
    tried = room_for(monkeypatch, 300)
    _, other, result = train(tiny, tmp_path / "b", config)
    assert tried[0] > 300
    # Once a step has fitted, every later one does.
    fitting = [size <= 300 for size in tried]
    assert fitting == sorted(fitting)
    assert sum(fitting) == 4
    assert result.times_out_of_memory == len(tried) - 4
    assert restore_plan(RunDir(tmp_path / "b")).tokens_per_micro_batch <= 300
    assert losses(history) == pytest.approx(losses(other), rel=1e-5)
    assert losses(history, "tokens") == losses(other, "tokens")
