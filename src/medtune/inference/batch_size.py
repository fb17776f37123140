"""How many questions are answered at once: what a row takes, as functions of a model's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Prompts are read in passes of at most this many tokens, padding included: enough to fill a GPU.
PROMPT_TOKENS = 8192
MAX_BATCH = {"cpu": 32, "cuda": 512}


@dataclass(frozen=True, slots=True)
class AnswerSizes:
    """Bytes of a row's key-value cache and logits, of a token of a prompt while it is read, and the longest prompt."""

    cache: int
    logits: int
    prompt_token: int
    longest_prompt: int

    def prompts(self, batch: int, *, static: bool) -> int:
        """What reading the prompts of a batch takes: in passes with a static cache, all at once without."""
        tokens = max(PROMPT_TOKENS, self.longest_prompt) if static else batch * self.longest_prompt
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
    if static:
        room -= sizes.prompts(1, static=True)
    else:
        row += sizes.prompts(1, static=False)
    return max(1, min(MAX_BATCH["cuda"], room // row))
