"""Where a training stops when it is told to, and how many steps a resumed one has to go."""

import json
from types import SimpleNamespace

import pytest

from medtune.run_dir.directory import RunDir
from medtune.runtime import interruption
from medtune.training.continuation import InterruptionCallback, TrainingOverError, is_validated, steps_to_go


def checkpoint(tmp_path, step, waited):
    folder = tmp_path / f"checkpoint-{step}"
    folder.mkdir()
    stopping = {"attributes": {"early_stopping_patience_counter": waited}}
    state = {
        "global_step": step, "max_steps": 9, "epoch": 0.5, "log_history": [], "logging_steps": 1, "eval_steps": 2,
        "save_steps": 2, "stateful_callbacks": {"TrainerControl": {}, "EarlyStoppingCallback": stopping},
    }  # fmt: skip
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def test_all_steps_are_to_go_unless_early_stopping_ended_the_training(tmp_path):
    assert steps_to_go(None, 9, 2) == 9
    assert steps_to_go(checkpoint(tmp_path, 4, waited=2), 9, None) == 9
    assert steps_to_go(checkpoint(tmp_path, 6, waited=1), 9, 2) == 9
    assert steps_to_go(checkpoint(tmp_path, 8, waited=2), 9, 2) == 8


def test_a_step_is_validated_if_the_log_says_so():
    log = [{"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.0}, {"step": 4, "loss": 1.0}]
    assert [is_validated(step, log) for step in (2, 4)] == [True, False]


def state(step, log=(), best=None):
    return SimpleNamespace(global_step=step, log_history=list(log), best_global_step=best, best_model_checkpoint="old")


ARGUMENTS = SimpleNamespace(eval_steps=2, load_best_model_at_end=True)


@pytest.mark.parametrize(
    ("step", "log", "due"), [(0, (), 0), (3, (), 0), (4, ({"step": 4, "eval_loss": 1.0},), 0), (4, (), 1)]
)
def test_a_validation_that_was_broken_off_comes_first(tmp_path, step, log, due):
    made = []
    stopping = InterruptionCallback(RunDir(tmp_path), lambda: bool(made.append(step)))
    stopping.on_train_begin(ARGUMENTS, state(step, log), None)
    assert len(made) == due


def test_the_validation_that_was_owed_may_end_the_training(tmp_path):
    with pytest.raises(TrainingOverError):
        InterruptionCallback(RunDir(tmp_path), lambda: True).on_train_begin(ARGUMENTS, state(4), None)


def test_the_best_checkpoint_is_looked_for_where_the_run_is_now(tmp_path):
    found = state(3, best=2)
    InterruptionCallback(RunDir(tmp_path), lambda: False).on_train_begin(ARGUMENTS, found, None)
    assert found.best_model_checkpoint == str(tmp_path / "checkpoints" / "checkpoint-2")


@pytest.mark.parametrize(
    ("agreed", "own", "stops"), [(None, True, True), (None, False, False), (True, False, True), (False, True, False)]
)
def test_of_several_processes_all_stop_or_none(tmp_path, monkeypatch, agreed, own, stops):
    """One process asks whether a signal came; several go by what they agreed on, whoever got the signal."""
    monkeypatch.setattr(interruption, "requested", lambda: own)
    stopping, control = (
        InterruptionCallback(RunDir(tmp_path), lambda: False),
        SimpleNamespace(should_save=False, should_training_stop=False),
    )
    if agreed is not None:
        stopping.told = agreed
    stopping.on_step_end(ARGUMENTS, state(1), control)
    assert (control.should_save, control.should_training_stop) == (stops, stops)
