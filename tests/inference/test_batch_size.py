"""What a row of a batch takes, how many fit, and how long they take, worked out by hand for small models."""

from dataclasses import replace

import pytest
from transformers import LlamaConfig

from medtune.inference.batch_size import (
    MAX_BATCH,
    PROMPT_TOKENS,
    REACHED_BANDWIDTH,
    REACHED_OPERATIONS,
    AnswersForecast,
    AnswerSizes,
    answer_sizes,
    batch_that_fits,
    forecast_answers,
    seconds_to_answer,
)
from medtune.model.quantization import FORMATS

CONFIG = LlamaConfig(
    hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
    head_dim=16, vocab_size=1000,
)  # fmt: skip
SIZES = AnswerSizes(cache=600, logits=400, prompt_token=10, longest_prompt=50)
SMALLER = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=500)
OPTIONS = {"packed": 1000, "width": 2, "static": True, "prompt_and_cap": (30, 20)}
FOUND = AnswersForecast(
    batch=4, longest_prompt=30, dequantized=0, cache=4000, logits=10, prompts=20, static=True
)  # fmt: skip


def test_sizes_of_a_small_model():
    sizes = answer_sizes(CONFIG, 2, longest_prompt=40, max_new_tokens=10)
    assert sizes.cache == 2 * 3 * 2 * 16 * 2 * 50
    assert sizes.logits == 1000 * (2 + 4)
    assert sizes.prompt_token == 6 * 2 * (64 + 96)
    assert sizes.longest_prompt == 40


def test_prompts_are_read_in_passes_with_a_static_cache_and_together_without():
    assert SIZES.prompts(7, static=False) == 10 * 7 * 50
    assert SIZES.prompts(7, static=True) == 10 * 7 * 50
    assert SIZES.prompts(PROMPT_TOKENS, static=True) == 10 * PROMPT_TOKENS
    long = AnswerSizes(cache=1, logits=1, prompt_token=10, longest_prompt=2 * PROMPT_TOKENS)
    assert long.prompts(1, static=True) == 10 * 2 * PROMPT_TOKENS


@pytest.mark.parametrize(
    ("free", "options", "rows"),
    [
        (2 * 5000, {"is_gpu": False, "static": False}, 5),
        (2 * 7500, {"is_gpu": True, "static": False}, 5),
        # Few rows, whose prompts are one pass, and many, whose prompts are several.
        (2 * (5 * 1500 + 1499), {"is_gpu": True, "static": True}, 5),
        (2 * (10 * PROMPT_TOKENS + 200 * 1000 + 999), {"is_gpu": True, "static": True}, 200),
        (0, {"is_gpu": True, "static": True}, 1),
        (0, {"is_gpu": False, "static": False}, 1),
        (10**12, {"is_gpu": False, "static": False}, MAX_BATCH["cpu"]),
        (10**12, {"is_gpu": True, "static": True}, MAX_BATCH["cuda"]),
    ],
)
def test_rows_fill_half_of_the_free_memory(free, options, rows):
    assert batch_that_fits(SIZES, free, **options) == rows


def test_weights_are_dequantised_where_they_take_at_most_two_fifths():
    assert forecast_answers(SMALLER, 5000, **OPTIONS).dequantized == 2000
    assert forecast_answers(SMALLER, 4999, **OPTIONS).dequantized == 0


def test_a_batch_that_is_given_overrules_what_fits():
    sizes = answer_sizes(SMALLER, 2, longest_prompt=30, max_new_tokens=20)
    found = forecast_answers(SMALLER, 10**8, **OPTIONS)
    assert found.batch == batch_that_fits(sizes, 10**8 - 2000, is_gpu=True, static=True)
    given = forecast_answers(SMALLER, 10**8, **OPTIONS, batch=3)
    assert (given.batch, given.cache, given.logits) == (3, 3 * sizes.cache, 3 * sizes.logits)


def test_prompts_come_before_logits():
    assert FOUND.working == 4000 + 20
    assert replace(FOUND, logits=30, dequantized=7).working == 7 + 4000 + 30


@pytest.mark.parametrize(("quantization", "dequantized", "moved"), [("nf4", 0, 4.53), ("nf4", 1, 2), ("none", 0, 2)])
def test_each_step_reads_the_weights_and_half_of_the_cache(quantization, dequantized, moved):
    rates = (1e15, 1e9)
    found = seconds_to_answer(
        replace(FOUND, dequantized=dequantized), 4, 20,
        parameters=10**6, storage=FORMATS[quantization], rates=rates,
    )  # fmt: skip
    cache = 4000 * (30 + 10) / 50
    steps = 20 * (moved * 10**6 + cache) / (1e9 * REACHED_BANDWIDTH)
    reading = 2 * 10**6 * 4 * 30 / (1e15 * REACHED_OPERATIONS)
    assert found == pytest.approx(steps + reading)


def test_without_a_static_cache_there_is_no_estimate():
    options = {"parameters": 1, "storage": FORMATS["none"], "rates": (1.0, 1.0)}
    assert seconds_to_answer(replace(FOUND, static=False), 1, 1, **options) is None
