"""Answers planned for a GPU that need not be here: how many at once, in how much memory, and how long they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medtune.inference.batch_size import MAX_BATCH, answer_sizes, batch_that_fits
from medtune.inference.fused_model import DEQUANTIZED_SHARE
from medtune.model.quantization import StorageFormat

# What steps of many rows reach of the operations and the bandwidth on the datasheet: 256 questions of 128 new
# tokens took 8.7 ms each on an H200 (docs/performance.md), which these shares predict as 8.9.
REACHED_OPERATIONS, REACHED_BANDWIDTH = 0.4, 0.8


@dataclass(frozen=True, slots=True)
class AnswersForecast:
    """The batch, and what it takes on the device in bytes; `static` says how the cache is kept."""

    batch: int
    longest_prompt: int
    dequantized: int
    cache: int
    logits: int
    prompts: int
    static: bool

    @property
    def working(self) -> int:
        """Bytes beside the model: prompts are read while the cache is there, logits of all rows come after."""
        return self.dequantized + self.cache + max(self.prompts, self.logits)


def forecast_answers(
    config: Any,
    free: int,
    *,
    packed: int,
    width: int,
    static: bool,
    prompt_and_cap: tuple[int, int],
    batch: int | None = None,
) -> AnswersForecast:
    """For a model of this configuration with `free` bytes beside it, `packed` of its weights packed.

    `prompt_and_cap` are the tokens of the longest prompt and of an answer at most; `batch` overrules what fits.
    """
    dequantized = packed * width if packed * width <= free * DEQUANTIZED_SHARE else 0
    longest, cap = prompt_and_cap
    sizes = answer_sizes(config, width, longest_prompt=longest, max_new_tokens=cap)
    rows = batch or batch_that_fits(sizes, free - dequantized, is_gpu=True, static=static)
    return AnswersForecast(
        batch=min(rows, batch or MAX_BATCH["cuda"]),
        longest_prompt=longest,
        dequantized=dequantized,
        cache=rows * sizes.cache,
        logits=rows * sizes.logits,
        prompts=sizes.prompts(rows, static=static),
        static=static,
    )


def seconds_to_answer(
    answers: AnswersForecast,
    questions: int,
    new_tokens: int,
    *,
    parameters: int,
    storage: StorageFormat,
    rates: tuple[float, float],
) -> float | None:
    """An estimate for answers that all take `new_tokens`; None without a static cache, where the host sets the pace.

    `parameters` are those of all matrix products, in the format `storage`; `rates` are operations and bytes a second
    on the datasheet.
    """
    if not answers.static:
        return None
    operations, bandwidth = rates[0] * REACHED_OPERATIONS, rates[1] * REACHED_BANDWIDTH
    rows = min(answers.batch, questions)
    batches = -(-questions // rows)
    # A step reads weights in 16 bit; packed ones are read, and written in 16 bit, before that.
    weights = (2 + (0 if answers.dequantized else storage.unpacking_bytes(2))) * parameters
    cache = answers.cache / answers.batch * rows * (answers.longest_prompt + new_tokens / 2)
    cache /= answers.longest_prompt + new_tokens
    a_step = max(2 * parameters * rows / operations, weights / bandwidth) + cache / bandwidth
    reading = 2 * parameters * questions * answers.longest_prompt / operations
    return reading + batches * new_tokens * a_step
