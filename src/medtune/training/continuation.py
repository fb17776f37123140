"""Where a training stops when it is told to, and where it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from medtune import interruption
from medtune.config import Config
from medtune.run_dir import RunDir
from medtune.training.checkpoint_files import read_state, reading


class ValidationStoppedError(Exception):
    """A signal came during a validation, which a resumed training makes first."""


class InterruptionCallback(TrainerCallback):  # type: ignore[misc]
    """Saves a checkpoint after the step in hand and ends the training, once any of its processes was told to stop."""

    def __init__(self, run: RunDir):
        self.run = run
        self.told: bool | None = None
        self.validate: Callable[[], object] = lambda: None

    @staticmethod
    def owes_validation(args: Any, state: Any) -> bool:
        """Whether the checkpoint that training goes on from lacks the validation of its step."""
        validated = {entry["step"] for entry in state.log_history if "eval_loss" in entry}
        step = state.global_step
        return step > 0 and step % args.eval_steps == 0 and step not in validated

    def agree(self, told: bool) -> None:
        """What several processes found in their exchange: all of them have to stop after the same step."""
        self.told = told

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A validation that was broken off, and the best checkpoint by its place today.

        The state holds the path that it had when it was saved.
        """
        if self.owes_validation(args, state):
            self.validate()
        if state.best_global_step is not None and args.load_best_model_at_end:
            best = self.run.checkpoints_dir / f"checkpoint-{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look whether a signal has come."""
        if interruption.requested() if self.told is None else self.told:
            control.should_save = control.should_training_stop = True


def steps_to_go(checkpoint: Path | None, steps: int, config: Config) -> int:
    """Optimiser steps of the whole training: `steps`, or as many as there were when early stopping ended it."""
    patience = config.training.early_stopping_patience
    if checkpoint is None or patience is None:
        return steps
    state = read_state(checkpoint)
    saved: Any = state.get("stateful_callbacks", {}).get(EarlyStoppingCallback.__name__, {})
    with reading(checkpoint):
        waited = int(saved.get("attributes", {}).get("early_stopping_patience_counter", 0))
    return int(state["global_step"]) if waited >= patience else steps
