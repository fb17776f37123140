"""The plan that a training began with, read back when it is resumed."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import TypeAdapter, ValidationError
from transformers.training_args import OptimizerNames

from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.sealing import plan_error, read_plan, save_plan
from medtune.training.plan.peaks import TrainingPlan


def keep_plan(run: RunDir, plan: TrainingPlan) -> None:
    """Keep `plan` beside the checkpoints."""
    save_plan(run, asdict(plan))


def restore_plan(run: RunDir, device: str | None = None) -> TrainingPlan:
    """The plan of the checkpoints. Raises RunDirError if it is missing, damaged or not for `device`."""
    try:
        plan = TypeAdapter(TrainingPlan).validate_json(read_plan(run), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise plan_error(run, f"damaged ({field + ': ' if field else ''}{first['msg']})") from None
    if plan.offloaded_layers and device is not None and not device.startswith("cuda"):
        raise plan_error(run, f"offloaded_layers is {plan.offloaded_layers}, which takes a GPU, and this is {device}")
    if plan.embeddings == "host" and device is not None and not device.startswith("cuda"):
        raise plan_error(run, f"embeddings are in host memory beside a GPU's, and this is {device}")
    counts = (plan.offloaded_layers, plan.checkpointed_layers, plan.layers)
    if plan.tokens_per_micro_batch < 1 or counts[0] < 0 or list(counts) != sorted(counts):
        raise plan_error(run, "damaged (its counts do not fit each other)")
    if plan.optimizer not in {optimizer.value for optimizer in OptimizerNames}:
        raise plan_error(run, f"damaged (optimizer: {plan.optimizer} is unknown)")
    return plan
