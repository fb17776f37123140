"""How many questions are answered at once, in how much memory, and how long they take.

All of it is computed from a model's configuration, for a GPU that need not be here.
"""

from dataclasses import dataclass
from typing import Any

from medtune.inference.fused_model import DEQUANTIZED_SHARE
from medtune.model.quantization import StorageFormat

# Prompts are read in passes of at most this many tokens, padding included: enough to fill a GPU.
PROMPT_TOKENS = 8192
MAX_BATCH = {"cpu": 32, "cuda": 512}
# What steps of many rows reach of the operations and the bandwidth on the datasheet: 256 questions of 128 new
# tokens took 8.7 ms each on an H200 (docs/performance.md), which these shares predict as 8.9.
REACHED_OPERATIONS, REACHED_BANDWIDTH = 0.4, 0.8


@dataclass(frozen=True, slots=True)
class AnswerSizes:
    """Bytes of a row's key-value cache and logits, of a token of a prompt while it is read, and the longest prompt."""

    cache: int
    logits: int
    prompt_token: int
    longest_prompt: int

    def prompts(self, batch: int, *, static: bool) -> int:
        """What reading the prompts of a batch takes: in passes with a static cache, all at once without."""
        tokens = batch * self.longest_prompt
        if static:
            tokens = max(min(tokens, PROMPT_TOKENS), self.longest_prompt)
        return self.prompt_token * tokens


def answer_sizes(config: Any, width: int, *, longest_prompt: int, max_new_tokens: int) -> AnswerSizes:
    """From a model's configuration, for elements of `width` bytes."""
    text = config.get_text_config()
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return AnswerSizes(
        cache=2 * text.num_hidden_layers * heads * head_dim * width * (longest_prompt + max_new_tokens),
        # A step's logits exist in the model's dtype and in float32.
        logits=text.vocab_size * (width + 4),
        # A layer's inputs, norms, projections and its feed-forward part, adapters' float32 copies included.
        prompt_token=6 * width * (text.hidden_size + getattr(text, "intermediate_size", 4 * text.hidden_size)),
        longest_prompt=longest_prompt,
    )


def batch_that_fits(sizes: AnswerSizes, free: int, *, is_gpu: bool, static: bool) -> int:
    """The most rows that fit in half of the `free` bytes, one at least; `static` says how the cache is kept."""
    row, room = sizes.cache + sizes.logits, free // 2
    if not is_gpu:
        return max(1, min(MAX_BATCH["cpu"], room // row))
    # All prompts of few rows are read in one pass.
    rows = room // (row + sizes.prompts(1, static=False))
    if static:
        rows = max(rows, (room - sizes.prompts(MAX_BATCH["cuda"], static=True)) // row)
    return max(1, min(MAX_BATCH["cuda"], rows))


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
        batch=rows,
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
