"""Supervised fine-tuning of an adapter on answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from medtune.config.schema import Config
from medtune.errors import MedtuneError, Option, first_line
from medtune.model.answer_loss import add_answer_loss
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.runtime import hardware, interruption
from medtune.training.answer_trainer import AnswerTrainer, require_finite_adapter, require_float32_adapter
from medtune.training.arguments import build_arguments, total_steps
from medtune.training.batching import steps_per_epoch
from medtune.training.checkpoints.contents import read_state, require_known_files
from medtune.training.checkpoints.pushing import open_pusher
from medtune.training.checkpoints.sealing import step_of
from medtune.training.continuation import (
    InterruptionCallback,
    TrainingOverError,
    ValidationStoppedError,
    is_validated,
    require_best,
    steps_to_go,
)
from medtune.training.history import HistoryCallback
from medtune.training.plan.kept_plan import keep_plan
from medtune.training.preparation import PreparedStep
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


def train_adapter(
    model: Any,
    tokenizer: Any,
    train_rows: Sequence[EncodedRow],
    validation_rows: Sequence[EncodedRow],
    *,
    config: Config,
    run: RunDir,
    dtype: str,
    prepared: PreparedStep,
    origin: Mapping[str, str] = MappingProxyType({}),
    resume_from: Path | None = None,
) -> tuple[Any, TrainingResult]:
    """Train the adapter that `model` wears and return the model with the weights to keep, and how it went.

    `model` is a PeftModel on one device, made ready as `prepared` says; `origin` says what the training is made of.
    Raises MedtuneError if a step or the adapter came out with NaN or infinite numbers or memory does not suffice, and
    Interrupted, after a checkpoint, if a signal came.
    """
    device = str(next(parameter.device for parameter in model.parameters() if parameter.requires_grad))
    if resume_from is not None:
        require_known_files(resume_from)
        state = read_state(resume_from)
        if config.training.keep == "best":
            require_best(resume_from, state)
    steps = steps_to_go(resume_from, total_steps(config, len(train_rows)), config)
    epoch_steps = steps_per_epoch(len(train_rows), config.training.effective_batch_rows)
    if hardware.rank() == 0:
        step = step_of(resume_from) if resume_from else 0
        run.truncate_history(step, validated=is_validated(step, state["log_history"]) if resume_from else True)
        keep_plan(run, prepared.plan)
    history, stopping = HistoryCallback(run, epoch_steps), InterruptionCallback(run)
    pusher = open_pusher(run, config, resume_from)
    add_answer_loss(model.get_base_model())
    trainer = AnswerTrainer(
        config=config,
        train_rows=train_rows,
        validation_rows=validation_rows,
        history=history,
        stopping=stopping,
        origin=origin,
        prepared=prepared,
        pusher=pusher,
        model=model,
        args=build_arguments(config, run, prepared.plan, steps=steps, device=device, dtype=dtype),
        processing_class=tokenizer,
        callbacks=[history, stopping, *_callbacks(config, run)],
    )
    trainer.remove_callback(PrinterCallback)
    stopping.validate = trainer.validate_first
    try:
        if device != "cpu":  # where memory that runs out is no error to catch
            rehearse(trainer)
        with interruption.deferred():
            try:
                trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
            except ValidationStoppedError as stopped:
                if not stopped.owed:  # else the checkpoint that training went on from says all
                    trainer.save_now()
            except TrainingOverError:
                trainer.load_best()
            except torch.OutOfMemoryError as error:
                # Outside of passes and validations, which make do with less: the optimiser's own.
                raise MedtuneError(
                    f"training ran out of GPU memory after step {trainer.state.global_step} ({first_line(error)})",
                    fix=(
                        "go on with ",
                        Option("resume"),
                        " ",
                        Option("set", "training.memory_gib=…"),
                        " and a number below the memory that is free",
                    ),
                ) from None
    finally:
        history.close()
        if pusher is not None:
            pusher.close()
    require_float32_adapter(trainer.model)
    require_finite_adapter(trainer.model)
    result = TrainingResult(
        steps=trainer.state.global_step,
        best_step=trainer.state.best_global_step,
        validation_loss=_kept_loss(trainer, config),
        train_loss=_mean_loss(trainer),
        trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        tokens=history.tokens,
        times_out_of_memory=trainer.times_out_of_memory,
    )
    return trainer.model, result


def _mean_loss(trainer: AnswerTrainer) -> float:
    # The trainer's own covers the steps since it was resumed.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return math.fsum(losses) / len(losses)


def _kept_loss(trainer: AnswerTrainer, config: Config) -> float | None:
    losses: list[float] = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    if config.training.keep == "best" and trainer.state.best_metric is not None:
        return float(trainer.state.best_metric)
    return losses[-1] if losses else None


def _callbacks(config: Config, run: RunDir) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if config.training.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(config.training.early_stopping_patience))
    if "tensorboard" in config.training.report_to:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        callbacks.append(TensorBoardCallback(SummaryWriter(log_dir=str(run.tracker_dir))))
    return callbacks


def result_record(result: TrainingResult) -> dict[str, Any]:
    """For the provenance."""
    return asdict(result)
