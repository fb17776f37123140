"""The history of a training: a line a step and a validation, rates of training time alone, and tokens that add up."""

from types import SimpleNamespace

import pytest

from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import listening
from medtune.training import history as module
from medtune.training.history import HistoryCallback


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.seconds)
    return now


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path)


def state(step):
    return SimpleNamespace(global_step=step, max_steps=6)


def step(history, number, tokens, clock, seconds, loss=2.0):
    history.count(tokens)
    clock.seconds += seconds
    history.on_step_end(None, state(number), None)
    history.on_log(None, state(number), None, {"loss": loss, "grad_norm": 0.5, "learning_rate": 1e-3})


def test_steps_and_validations_are_lines_of_the_file(run, clock):
    history = HistoryCallback(run, epoch_steps=3)
    history.on_train_begin(None, state(0), None)
    step(history, 1, 300, clock, 2)
    step(history, 2, 500, clock, 4, loss=1.5)
    history.on_log(None, state(2), None, {"eval_loss": 1.75})
    history.on_log(None, state(2), None, {"train_runtime": 9.0})
    history.on_train_end(None, state(2), None)
    rest = {"grad_norm": 0.5, "learning_rate": 1e-3}
    assert run.read_history() == [
        {"step": 1, "epoch": 0.3333, "loss": 2.0, **rest, "tokens": 300, "tokens_per_second": 150.0},
        {"step": 2, "epoch": 0.6667, "loss": 1.5, **rest, "tokens": 800, "tokens_per_second": 125.0},
        {"step": 2, "epoch": 0.6667, "validation_loss": 1.75},
    ]


def test_validation_time_is_no_training_time(run, clock):
    history = HistoryCallback(run, epoch_steps=3)
    history.on_train_begin(None, state(0), None)
    step(history, 1, 100, clock, 1)
    clock.seconds += 1000
    history.on_evaluate(None, state(1), None)
    step(history, 2, 100, clock, 4)
    assert [entry["tokens_per_second"] for entry in run.read_history()] == [100.0, 25.0]


def test_a_training_that_goes_on_counts_from_where_it_was(run, clock):
    run.append_history({"step": 3, "loss": 1.0, "tokens": 4000})
    run.append_history({"step": 3, "validation_loss": 1.0})
    heard = []
    with listening(heard.append):
        history = HistoryCallback(run, epoch_steps=3)
        history.on_train_begin(None, state(3), None)
        step(history, 4, 100, clock, 1)
        # The rate and the loss are shown beside the bar from the next step on.
        step(history, 5, 100, clock, 1)
        history.close()
    assert [entry["tokens"] for entry in run.read_history() if "tokens" in entry] == [4000, 4100, 4200]
    assert [(event.done, event.total, event.note) for event in heard] == [
        (3, 6, ""), (4, 6, ""), (5, 6, "100 tok/s, loss 2.000"),
    ]  # fmt: skip


def test_of_several_processes_the_first_writes(run, clock, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    history = HistoryCallback(run, epoch_steps=3)
    history.on_log(None, state(1), None, {"loss": 1.0})
    assert run.read_history() == []
