"""A validation that a signal interrupts is made up for before anything else."""

import signal

import pytest
from trainings import assert_same, make_config, train

from medtune.run_dir.directory import RunDir
from medtune.runtime import interruption
from medtune.runtime.distributed import PeerEnded
from medtune.training import answer_trainer, sft, validating_trainer
from medtune.training.checkpoints.sealing import last_checkpoint


def test_a_signal_in_a_validation_saves_at_once_and_the_validation_is_made_first_on_resuming(
    tiny, tmp_path, monkeypatch
):
    settings = {"max_steps": 6, "epochs": 2, "tokens_per_micro_batch": 64, "early_stopping_patience": 5}
    config = make_config(tiny, **settings)
    whole, history, result = train(tiny, tmp_path / "a", config)
    measured, losses_of, passes = [], validating_trainer.answer_losses, []

    def interrupted(*args, on_rows, **options):
        measured.append(len(passes))

        def watched(rows):
            passes.append(rows)
            if len(measured) == 2:
                signal.raise_signal(signal.SIGTERM)
            on_rows(rows)

        return losses_of(*args, on_rows=watched, **options)

    monkeypatch.setattr(validating_trainer, "answer_losses", interrupted)
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
    measured, losses_of = [], validating_trainer.answer_losses

    def interrupted(*args, on_rows, **options):
        measured.append(None)

        def watched(rows):
            if len(measured) == number:
                signal.raise_signal(signal.SIGTERM)
            on_rows(rows)

        return losses_of(*args, on_rows=watched, **options)

    with monkeypatch.context() as patch:
        patch.setattr(validating_trainer, "answer_losses", interrupted)
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


def test_a_validation_that_another_process_breaks_off_is_owed(tiny, tmp_path, monkeypatch):
    config = make_config(tiny, max_steps=4, epochs=2, keep="last", lora={"dropout": 0.1})
    whole, history, _ = train(tiny, tmp_path / "a", config)

    def end_of_the_launch():
        raise PeerEnded("interrupted", 75)

    with monkeypatch.context() as patch:
        patch.setattr(validating_trainer, "exchange", lambda losses: [losses, None])
        patch.setattr(sft, "barrier", end_of_the_launch)
        with pytest.raises(PeerEnded):
            train(tiny, tmp_path / "b", config)
    checkpoint = last_checkpoint(RunDir(tmp_path / "b"))
    assert "validation_loss" not in RunDir(tmp_path / "b").read_history()[-1]
    resumed, other, _ = train(tiny, tmp_path / "b", config, resume_from=checkpoint)
    assert timeless(other) == timeless(history)
    assert_same(whole, resumed, rtol=0, atol=0)
