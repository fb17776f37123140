"""Speed of a transformers trainer, from outside: when each step ended, and what the model was given in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from medquad_rows import Row
from reporting import WARMUP_STEPS, synchronize

# Real tokens and labelled tokens of a micro-batch.
Count = tuple[int, int]


def step_clock() -> Any:
    """A callback whose `times` are those at which optimiser steps had ended, on the GPU too."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            synchronize()
            self.times.append(time.monotonic())

    return Clock()


def count_tokens(trainer: Any) -> list[Count]:
    """Counts of every micro-batch as the model gets it; filled while `trainer` trains."""
    counts: list[Count] = []
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        mask = inputs.get("attention_mask")
        real = int(mask.sum()) if mask is not None else int(inputs["input_ids"].numel())
        counts.append((real, int((inputs["labels"] != -100).sum())))
        return step(model, inputs, *args, **kwargs)

    trainer.training_step = counted
    return counts


def training_speed(times: Sequence[float], counts: Sequence[Count], history: Sequence[Any]) -> dict[str, Any]:
    """Σ real tokens / Σ seconds behind the warm-up, and the first and last loss of the trainer's log."""
    timed, passes_a_step = len(times) - WARMUP_STEPS, len(counts) // len(times)
    passes = counts[WARMUP_STEPS * passes_a_step :]
    tokens, seconds = sum(real for real, _ in passes), times[-1] - times[WARMUP_STEPS - 1]
    # transformers 5 logs numbers as text.
    losses = [float(entry["loss"]) for entry in history if "loss" in entry]
    return {
        "tok_s": round(tokens / seconds),
        "ms_per_step": round(1000 * seconds / timed),
        "tokens_per_step": round(tokens / timed),
        "tokens_per_micro_batch": round(tokens / len(passes)),
        "steps": len(times),
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
    }


def labels_seen(counts: Sequence[Count], rows: Sequence[Row]) -> str:
    """What the loss looked at, as the share of labelled tokens tells beside that of the rows."""
    seen = sum(labelled for _, labelled in counts) / sum(real for real, _ in counts)
    answers = sum(label != -100 for row in rows for label in row["labels"])
    expected = answers / sum(len(row["input_ids"]) for row in rows)
    # Packing and a cut at `maxlen` shift the share a little; training on prompts makes it 1.
    kind = "answers only" if abs(seen - expected) < (1 - expected) / 2 else "NOT the rows' labels"
    return f"{kind}: {seen:.1%} of the tokens, {expected:.1%} in the rows"


def lift_adapter(model: Any) -> None:
    """Make the adapter float32: TRL casts that of a 4-bit model to bfloat16, with which float16 cannot train."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
