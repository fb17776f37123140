"""A sealed checkpoint may still have been edited, and sealed again: what it holds is checked as it is read.

So is the plan, which is kept beside the checkpoints: a resumed training computes its steps in the same way.

The trainer reads tensors with torch's `weights_only`, so that a pickle in their place runs nothing.
"""

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from transformers import TrainerState
from transformers.training_args import OptimizerNames

from medtune.errors import RunDirError, first_line
from medtune.run_dir.directory import RunDir
from medtune.runtime.terminal import one_line
from medtune.storage.reading import DamagedError, check_type, read_mapping, read_text
from medtune.training.checkpoints.sealing import PLAN_NAME, step_of
from medtune.training.plan.peaks import TrainingPlan

STATE_NAME = "trainer_state.json"
# The trainer writes it with every checkpoint, and nothing reads it.
_UNREAD = {"training_args.bin"}
# Without them the trainer would resume all the same, with fresh moments and random numbers.
_NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth")
# An optimizer's tensors that are as large as the weight they belong to, in torch and in bitsandbytes.
_LIKE_WEIGHTS = ("exp_avg", "exp_avg_sq", "momentum_buffer", "state1", "state2")
_Count = Annotated[int, Field(ge=1, strict=True)]


@dataclass(frozen=True)
class _State:
    """The part of the trainer's own state that a training resumes from."""

    global_step: _Count
    max_steps: _Count
    epoch: float
    log_history: list[dict[str, Any]]
    stateful_callbacks: dict[str, dict[str, Any] | list[dict[str, Any]]]
    logging_steps: _Count
    eval_steps: _Count
    save_steps: _Count
    train_batch_size: _Count | None = None
    best_global_step: int | None = None
    best_metric: float | None = None


def read_state(folder: Path) -> dict[str, Any]:
    """The trainer's state in a checkpoint. Raises RunDirError if it is damaged, or of another step."""
    try:
        state = read_mapping(folder / STATE_NAME)
        checked = check_type(_State, state)
    except FileNotFoundError:
        raise checkpoint_error(folder, f"{STATE_NAME} is missing") from None
    except DamagedError as error:
        raise checkpoint_error(folder, f"{STATE_NAME}: {error}") from None
    if unknown := sorted(state.keys() - {known.name for known in fields(TrainerState)}):
        raise checkpoint_error(folder, f"{STATE_NAME}: {unknown[0]} is unknown")
    if "TrainerControl" not in checked.stateful_callbacks:
        raise checkpoint_error(folder, f"{STATE_NAME}: stateful_callbacks lacks TrainerControl")
    if folder.name != f"checkpoint-{checked.global_step}":
        raise checkpoint_error(folder, f"{STATE_NAME}: global_step is {checked.global_step}")
    return state


def best_step(folder: Path) -> int | None:
    """The step of the best checkpoint when this one was saved; its own where that cannot be read."""
    try:
        return read_state(folder)["best_global_step"]  # type: ignore[no-any-return]
    except RunDirError:
        return step_of(folder)


def require_known_files(folder: Path) -> None:
    """Raises RunDirError for a missing file that the trainer would do without, and one that medtune never writes."""
    files = [file.relative_to(folder) for file in sorted(folder.rglob("*"))]
    for file in files:
        weights = file.suffix in (".bin", ".safetensors") and file.name not in {"adapter_model.safetensors", *_UNREAD}
        if weights or (folder / file).is_dir():
            raise checkpoint_error(folder, f"{file} is not of a training by medtune")
    for pattern in _NEEDED:
        if not any(file.match(pattern) for file in files):
            raise checkpoint_error(folder, f"{pattern} is missing")


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn any failure of the trainer to read a checkpoint into a RunDirError of one line."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise  # not the checkpoint's fault
    except (
        pickle.UnpicklingError, SafetensorError, struct.error, OSError, EOFError, RuntimeError, ValueError, TypeError,
        LookupError, AttributeError, ArithmeticError,
    ) as error:  # fmt: skip
        # The first line of torch's refusal says what it found; the others say how to run the code in it.
        reason = "holds a pickle" if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise checkpoint_error(folder, f"cannot be read ({reason})") from None


def require_fitting_moments(optimizer: Any, folder: Path) -> None:
    """Raises RunDirError if the optimizer read moments that are not finite, or of other shapes than its weights."""
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    for weight in weights:
        for name, moment in optimizer.state.get(weight, {}).items():
            if not isinstance(moment, torch.Tensor):
                continue
            if name in _LIKE_WEIGHTS and moment.shape != weight.shape:
                raise checkpoint_error(folder, f"optimizer.pt: {name} has shape {tuple(moment.shape)}")
            if not torch.isfinite(moment).all():
                raise checkpoint_error(folder, f"optimizer.pt: {name} holds NaN or infinite numbers")


def checkpoint_error(folder: Path, problem: str) -> RunDirError:
    """The error that training cannot resume from `folder`."""
    fix = f"delete {folder} to go on from the checkpoint before it, or start over"
    return RunDirError(folder, one_line(problem), fix)


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
            offloaded = f"offloaded_layers is {plan.offloaded_layers}, which takes a GPU"
            raise _plan_error(run, f"{offloaded}, and this is {device}")
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
