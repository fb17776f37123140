"""The plan of a training, kept beside its checkpoints: a resumed training computes its steps in the same way."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError
from transformers.training_args import OptimizerNames

from medtune.errors import RunDirError
from medtune.run_dir.directory import RunDir
from medtune.storage.reading import DamagedError, read_text
from medtune.training.checkpoints.sealing import PLAN_NAME
from medtune.training.plan.peaks import TrainingPlan


def keep_plan(run: RunDir, plan: TrainingPlan) -> None:
    """Keep `plan` beside the checkpoints."""
    run.write_json(run.checkpoints_dir / PLAN_NAME, asdict(plan))


def restore_plan(run: RunDir, device: str | None = None) -> TrainingPlan:
    """The plan of the checkpoints. Raises RunDirError if it is missing, damaged or not for `device`."""
    try:
        plan = TypeAdapter(TrainingPlan).validate_json(read_text(run.checkpoints_dir / PLAN_NAME), strict=True)
    except FileNotFoundError:
        raise _plan_error(run, "missing") from None
    except DamagedError as error:
        raise _plan_error(run, f"damaged ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise _plan_error(run, f"damaged ({field + ': ' if field else ''}{first['msg']})") from None
    if device is not None and not device.startswith("cuda"):
        if plan.offloaded_layers:
            raise _plan_error(
                run, f"offloaded_layers is {plan.offloaded_layers}, which takes a GPU, and this is {device}"
            )
        if plan.embeddings == "host":
            raise _plan_error(run, f"embeddings are in host memory beside a GPU's, and this is {device}")
    counts = (plan.offloaded_layers, plan.checkpointed_layers, plan.layers)
    if plan.tokens_per_micro_batch < 1 or counts[0] < 0 or list(counts) != sorted(counts):
        raise _plan_error(run, "damaged (its counts do not fit each other)")
    if plan.optimizer not in {optimizer.value for optimizer in OptimizerNames}:
        raise _plan_error(run, f"damaged (optimizer: {plan.optimizer} is unknown)")
    return plan


def _plan_error(run: RunDir, problem: str) -> RunDirError:
    fix = f"restore it, or delete {run.checkpoints_dir} to start over"
    return RunDirError(run.checkpoints_dir / PLAN_NAME, problem, fix)
