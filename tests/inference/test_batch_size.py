"""What a row of a batch takes, and how many fit, worked out by hand for a small model."""

import pytest
from transformers import LlamaConfig

from medtune.inference.batch_size import MAX_BATCH, PROMPT_TOKENS, AnswerSizes, answer_sizes, batch_that_fits

CONFIG = LlamaConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, vocab_size=1000,
)  # fmt: skip
SIZES = AnswerSizes(cache=600, logits=400, prompt_token=10, longest_prompt=50)


def test_sizes_of_a_small_model():
    sizes = answer_sizes(CONFIG, 2, longest_prompt=40, max_new_tokens=10)
    assert sizes.cache == 2 * 3 * 2 * 16 * 2 * 50
    assert sizes.logits == 1000 * (2 + 4)
    assert sizes.prompt_token == 6 * 2 * (64 + 96)
    assert sizes.longest_prompt == 40


def test_prompts_are_read_in_passes_with_a_static_cache_and_together_without():
    assert SIZES.prompts(7, static=False) == 10 * 7 * 50
    assert SIZES.prompts(7, static=True) == 10 * PROMPT_TOKENS
    long = AnswerSizes(cache=1, logits=1, prompt_token=10, longest_prompt=2 * PROMPT_TOKENS)
    assert long.prompts(1, static=True) == 10 * 2 * PROMPT_TOKENS


@pytest.mark.parametrize(
    ("free", "options", "rows"),
    [
        (2 * 5000, {"is_gpu": False, "static": False}, 5),
        (2 * 7500, {"is_gpu": True, "static": False}, 5),
        (2 * (10 * PROMPT_TOKENS + 5999), {"is_gpu": True, "static": True}, 5),
        (0, {"is_gpu": True, "static": True}, 1),
        (0, {"is_gpu": False, "static": False}, 1),
        (10**12, {"is_gpu": False, "static": False}, MAX_BATCH["cpu"]),
        (10**12, {"is_gpu": True, "static": True}, MAX_BATCH["cuda"]),
    ],
)
def test_rows_fill_half_of_the_free_memory(free, options, rows):
    assert batch_that_fits(SIZES, free, **options) == rows
