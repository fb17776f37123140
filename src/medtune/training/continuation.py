"""Where a training stops when it is told to, and where it resumes."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from medtune.errors import RunDirError
from medtune.run_dir.directory import RunDir
from medtune.runtime import interruption
from medtune.training.checkpoints.contents import read_state, reading
from medtune.training.checkpoints.sealing import damage_of


class ValidationStoppedError(Exception):
    """A signal came during a validation; `owed` if that one made up for an earlier one, broken off by a signal too."""

    owed = False


class TrainingOverError(Exception):
    """Early stopping ended the training by the validation that was owed."""


class InterruptionCallback(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint after the step in hand and ends the training, once any of its processes was told to stop."""

    def __init__(self, run: RunDir, validate: Callable[[], bool]):
        """`validate` makes up for a validation that was broken off, and returns whether training is over by it."""
        self.run, self.validate = run, validate
        # What several processes agreed on: all of them have to stop after the same step.
        self.told: bool | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make up for a validation that was broken off, and find the best checkpoint.

        The state holds the path that the checkpoint had when it was saved; the run may have moved since.
        """
        due = state.global_step > 0 and state.global_step % args.eval_steps == 0
        over = due and not is_validated(state.global_step, state.log_history) and self.validate()
        if state.best_global_step is not None and args.load_best_model_at_end:
            state.best_model_checkpoint = str(self.run.checkpoints_dir / f"checkpoint-{state.best_global_step}")
        if over:
            raise TrainingOverError

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop if a signal has come."""
        if interruption.requested() if self.told is None else self.told:
            control.should_save = control.should_training_stop = True


def is_validated(step: int, log_history: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the trainer's log holds a validation of this step."""
    return any(entry.get("step") == step and "eval_loss" in entry for entry in log_history)


def require_best(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Raises RunDirError if the best checkpoint so far, which may be the result of the training, is missing or torn."""
    if state["best_global_step"] is None:
        return
    best = checkpoint.with_name(f"checkpoint-{state['best_global_step']}")
    if damage := damage_of(best):
        fix = f"restore it, or delete {checkpoint.parent} to start over"
        raise RunDirError(best, f"the best checkpoint so far is torn or gone ({damage})", fix)


def steps_to_go(checkpoint: Path | None, steps: int, patience: int | None) -> int:
    """Optimiser steps of the whole training: `steps`, or as many as there were when early stopping ended it.

    `patience` is `training.early_stopping_patience`.
    """
    if checkpoint is None or patience is None:
        return steps
    state = read_state(checkpoint)
    saved: Any = state.get("stateful_callbacks", {}).get(EarlyStoppingCallback.__name__, {})
    with reading(checkpoint):
        waited = int(saved.get("attributes", {}).get("early_stopping_patience_counter", 0))
    return int(state["global_step"]) if waited >= patience else steps
