"""Supervised fine-tuning of an adapter on answers."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from medtune.errors import MedtuneError, Option, first_line
from medtune.model.answer_loss import add_answer_loss
from medtune.runtime import interruption
from medtune.runtime.distributed import barrier
from medtune.runtime.launch import is_main
from medtune.training.answer_trainer import AnswerTrainer
from medtune.training.checkpoints.contents import keep_plan, read_state, require_known_files
from medtune.training.checkpoints.sealing import step_of
from medtune.training.continuation import (
    TrainingOverError,
    ValidationStoppedError,
    is_validated,
    require_best,
    steps_to_go,
)
from medtune.training.health import require_finite_adapter, require_float32_adapter
from medtune.training.prepared_step import TrainingJob
from medtune.training.rehearsal import rehearse


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """How a training went."""

    steps: int
    best_step: int | None
    validation_loss: float | None
    train_loss: float
    trainable_parameters: int
    tokens: int
    times_out_of_memory: int


def train_adapter(job: TrainingJob) -> tuple[Any, TrainingResult]:
    """Train the adapter of the job's model and return the model with the weights to keep, and how training went.

    Raises MedtuneError if a step or the adapter came out with NaN or infinite numbers or memory does not suffice, and
    Interrupted, after a checkpoint, if a signal came.
    """
    steps = _begin(job)
    add_answer_loss(job.prepared.model.get_base_model())
    trainer = AnswerTrainer(job, steps)
    try:
        if job.prepared.device != "cpu":  # where memory that runs out is no error to catch
            rehearse(trainer)
        with interruption.deferred():
            _train(trainer)
        # Where another process was told to stop, it has ended by now: this raises the end of the launch.
        barrier()
    finally:
        trainer.close()
    require_float32_adapter(trainer.model)
    require_finite_adapter(trainer.model)
    return trainer.model, _result(trainer)


def _begin(job: TrainingJob) -> int:
    """Bring history and plan to where training starts. Returns its steps; raises RunDirError for a bad checkpoint."""
    checkpoint, step, validated = job.resume_from, 0, True
    if checkpoint is not None:
        require_known_files(checkpoint)
        state = read_state(checkpoint)
        if job.training.keep == "best" and is_main():
            require_best(checkpoint, state)
        step = step_of(checkpoint)
        validated = is_validated(step, state["log_history"])
    steps = steps_to_go(checkpoint, job.steps, job.training.early_stopping_patience)
    if is_main():
        job.run.truncate_history(step, validated=validated)
        keep_plan(job.run, job.prepared.plan)
    return steps


def _train(trainer: AnswerTrainer) -> None:
    """Every step, up to the last one or to a signal, after which there is a checkpoint."""
    checkpoint = trainer.job.resume_from
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except ValidationStoppedError as stopped:
        if not stopped.owed:  # else the checkpoint that training resumed from has all there is
            trainer.save_now()
    except TrainingOverError:
        trainer.load_best()
    except torch.OutOfMemoryError as error:
        # Outside of passes and validations, which make do with less: the optimiser's own.
        problem = f"training ran out of GPU memory after step {trainer.state.global_step} ({first_line(error)})"
        less = Option("set", "training.memory_gib=…")
        fix = ("go on with ", Option("resume"), " ", less, " and a number below the memory that is free")
        raise MedtuneError(problem, fix=fix) from None


def _result(trainer: AnswerTrainer) -> TrainingResult:
    # The trainer's own mean covers the steps since it was resumed.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return TrainingResult(
        steps=trainer.state.global_step,
        best_step=trainer.state.best_global_step,
        validation_loss=_kept_loss(trainer),
        train_loss=math.fsum(losses) / len(losses),
        trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        tokens=trainer.history.tokens,
        times_out_of_memory=trainer.times_out_of_memory,
    )


def _kept_loss(trainer: AnswerTrainer) -> float | None:
    losses: list[float] = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    if trainer.job.training.keep == "best" and trainer.state.best_metric is not None:
        return float(trainer.state.best_metric)
    return losses[-1] if losses else None
