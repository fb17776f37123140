"""Training that goes wrong is stopped before its weights are spoilt: NaN, a gradient spike, a collapsed loss scale."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from medtune.errors import Command, MedtuneError, Option, Text, spell_out
from medtune.records import AnswerLoss, EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.runtime.distributed import exchange
from medtune.runtime.launch import is_main

# A spike is measured against the median of this many gradient norms before it, or of half as many at the start.
NORMS = 32
# Float16 gradients are scaled by 65,536 at first, and by half after each overflow: below one, gradients overflow as
# they are.
LEAST_SCALE = 1.0
# Rows that a message names; the file names all.
_NAMED_ROWS = 5


@dataclass(frozen=True, slots=True)
class StepReading:
    """An optimiser step before its update; `scale` is that of float16 gradients, None without."""

    step: int
    loss: float
    gradient_norm: float
    scale: float | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a step, and what to do about it, in words."""

    what: str
    advice: Text


class HealthWatch:
    """Looks at every step before its update."""

    def __init__(self, most_spike: float | None, earlier_norms: Iterable[float] = ()) -> None:
        """`earlier_norms` are the gradient norms so far of a resumed training."""
        self.most_spike = most_spike
        self.norms: deque[float] = deque((norm for norm in earlier_norms if math.isfinite(norm)), maxlen=NORMS)

    def trouble(self, reading: StepReading) -> Trouble | None:
        """What is wrong with this step, if anything."""
        half = reading.scale is not None
        if not math.isfinite(reading.loss):
            return Trouble(f"the loss is {reading.loss}", _lower_rate(half))
        if reading.scale is not None and reading.scale < LEAST_SCALE:
            return Trouble(
                f"the loss scale of float16 has fallen to {reading.scale:g}: gradients overflow at every step",
                _lower_rate(half),
            )
        if not math.isfinite(reading.gradient_norm):
            # With a scale the update is left out, and the next step has half of it.
            return None if half else Trouble(f"the gradient's norm is {reading.gradient_norm}", _lower_rate(half))
        usual = median(self.norms) if len(self.norms) >= NORMS // 2 else math.inf
        if self.most_spike is not None and usual > 0 and reading.gradient_norm > self.most_spike * usual:
            return Trouble(
                f"the gradient's norm is {reading.gradient_norm:.3g}, {reading.gradient_norm / usual:,.0f} times the "
                "median before it",
                (
                    "look at these rows; lower training.learning_rate and start over, or go on past it with ",
                    Command("run", "…", (Option("resume"), Option("set", "training.max_gradient_spike=null"))),
                ),
            )
        self.norms.append(reading.gradient_norm)
        return None


def stop_training(
    run: RunDir, trouble: Trouble, reading: StepReading, rows: Sequence[EncodedRow], losses: Sequence[AnswerLoss]
) -> MedtuneError:
    """Record a step's trouble with its rows and their losses; returns the error that stops the training."""
    means = [loss.nll / max(1, loss.tokens) for loss in losses]
    broken = [row.id for row, mean in zip(rows, means, strict=True) if not math.isfinite(mean)]
    by_loss = sorted(zip(means, rows, strict=True), key=lambda one: -one[0] if math.isfinite(one[0]) else -math.inf)
    suspects = broken or [row.id for _, row in by_loss]
    entries: list[dict[str, Any]] = [
        {"id": row.id, "tokens": len(row.input_ids), "loss": mean if math.isfinite(mean) else str(mean)}
        for mean, row in by_loss
    ]
    # JSON has no NaN.
    plain = {
        name: value if value is None or math.isfinite(value) else str(value) for name, value in asdict(reading).items()
    }
    record = {"what": trouble.what, "advice": spell_out(trouble.advice), **plain, "rows": entries}
    if is_main():
        run.write_json(run.trouble_file, record)
    named = ", ".join(suspects[:_NAMED_ROWS]) + (" …" if len(suspects) > _NAMED_ROWS else "")
    which = f"rows without a finite loss: {named}" if broken else f"its rows, the highest loss first: {named}"
    if len(broken) == len(rows):
        which = "none of its rows has a finite loss"
    problem = f"{trouble.what}; {which} (all in {run.trouble_file})"
    return MedtuneError(f"training stopped at step {reading.step}, before its update", problem, trouble.advice)


def _lower_rate(half: bool) -> Text:
    dtype = "set model.dtype to float32 or bfloat16, or " if half else ""
    advice = f"look at these rows, {dtype}lower training.learning_rate, and start over in another "
    return (advice, Option("run_dir"))


def require_float32_adapter(model: Any) -> None:
    """Raises MedtuneError, naming the weight, if a trainable parameter is not float32."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            fix = "this is a bug in medtune"
            raise MedtuneError(f"adapter weight {name} is {parameter.dtype}, not float32", fix=fix)


def require_one_adapter(model: Any) -> None:
    """Raises MedtuneError if the processes of a training have come to hold different weights."""
    norm = float(torch.nn.utils.get_total_norm(p for p in model.parameters() if p.requires_grad))
    if len(set(exchange(norm))) > 1:
        problem = "the processes have come to hold different adapters"
        raise MedtuneError("training stopped", problem, "this is a bug in medtune, or a GPU that miscalculates")


def require_finite_adapter(model: Any) -> None:
    """Raises MedtuneError, naming the weight, if a trainable parameter holds NaN or infinity."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if torch.isfinite(torch.nn.utils.get_total_norm(trained.values())):
        return  # one look, for which the device is waited for once
    for name, parameter in trained.items():
        if not torch.isfinite(parameter).all():
            fix = "lower training.learning_rate or set model.dtype to bfloat16 or float32"
            raise MedtuneError(f"the adapter has NaN or infinite weights ({name}), which are not saved", fix=fix)
