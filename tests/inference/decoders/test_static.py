"""Decoding in static buffers: its bookkeeping on the CPU, kernel by kernel, and its CUDA graphs on a GPU."""

import random

import pytest
import torch
from greedy_reference import CAP, END, generate_answers, one_by_one, spy_on_rows
from hypothesis import given
from hypothesis import strategies as st

from medtune.inference.decoders import static
from medtune.inference.decoders.greedy import Greedy
from medtune.inference.decoders.static import (
    PROMPT_TOKENS,
    StaticDecoder,
    close_ranks,
    prompt_passes,
    row_count,
    static_cache_obstacle,
)

GREEDY = Greedy(frozenset(END), CAP, pad_token_id=2)


@pytest.mark.parametrize("size", [1, 4, 32])
@pytest.mark.parametrize("look", [1, 5, 16])
def test_equals_greedy_decoding_without_a_cache(model, prompts, size, look):
    decoder = StaticDecoder(model, GREEDY, graphs=False, steps_per_look=look)
    # As given, not longest first: later batches come with wider prompts than the buffers were made for.
    batches = [prompts[first : first + size] for first in range(0, len(prompts), size)]
    answers = [answer for batch in batches for answer in decoder.decode(batch)]
    expected = [one_by_one(model, prompt) for prompt in prompts]
    assert {answer[-1] == 5 for answer in expected} == {True, False}, "the test needs both kinds"
    assert answers == expected


def test_rows_leave_in_the_steps_that_there_are_and_buffers_are_used_again(model, prompts, monkeypatch):
    decoder = StaticDecoder(model, GREEDY, graphs=False, steps_per_look=4)
    longest_first = sorted(prompts, key=len, reverse=True)
    expected = [one_by_one(model, prompt) for prompt in longest_first]
    seen = spy_on_rows(model, monkeypatch)
    assert decoder.decode(longest_first) == expected
    # The first token comes with the prompts; then the rows that still go are counted every 4 steps.
    going = [sum(len(answer) > step for answer in expected) for step in range(1, CAP, 4)]
    counts = [row_count(rows, len(prompts)) for rows in going if rows for _ in range(4)][: CAP - 1]
    assert len(set(counts)) > 2, "the test needs rows that leave"
    assert [rows for rows, _ in seen] == [len(prompts), *counts]
    buffers = decoder._step
    assert decoder.decode(longest_first[3:9][::-1]) == expected[3:9][::-1]
    assert decoder._step is buffers
    decoder.release()
    assert decoder._step is None


def test_a_batch_takes_the_steps_that_it_took_behind_a_larger_one(model, prompts, monkeypatch):
    """Rows of a step decide the last bits: a run that goes on at a small batch must not come to smaller buffers."""
    longest_first = sorted(prompts, key=len, reverse=True)
    seen = spy_on_rows(model, monkeypatch)
    decoder = StaticDecoder(model, GREEDY, graphs=False, steps_per_look=4)
    decoder.decode(longest_first)
    del seen[:]
    decoder.decode(longest_first[5:])
    behind, positions = list(seen), decoder._step.positions
    alone = StaticDecoder(model, GREEDY, graphs=False, steps_per_look=4)
    alone.reserve(len(prompts), len(longest_first[0]))
    del seen[:]
    alone.decode(longest_first[5:])
    assert seen == behind
    assert alone._step.positions == positions
    unprepared = StaticDecoder(model, GREEDY, graphs=False, steps_per_look=4)
    del seen[:]
    unprepared.decode(longest_first[5:])
    assert seen != behind, "the test needs a batch whose steps depend on the buffers"


def test_prompts_are_read_in_passes_of_bounded_size(model, prompts, monkeypatch):
    monkeypatch.setattr(static, "PROMPT_TOKENS", 100)
    expected = [one_by_one(model, prompt) for prompt in prompts]
    seen = spy_on_rows(model, monkeypatch)
    assert StaticDecoder(model, GREEDY, graphs=False).decode(prompts) == expected
    read = [shape for shape in seen if shape[1] > 1]
    assert len(read) > 3
    assert all(rows * tokens <= 100 or rows == 1 for rows, tokens in read)


def test_nothing_beyond_a_row_is_read(model, prompts):
    decoder = StaticDecoder(model, GREEDY, graphs=False)
    decoder.decode(prompts)
    # What an earlier batch left behind, at its worst.
    for buffer in decoder._step.cache.buffers(decoder._step.positions):
        buffer.fill_(float("nan"))
    buffers = decoder._step
    assert decoder.decode(prompts[:6]) == [one_by_one(model, prompt) for prompt in prompts[:6]]
    assert decoder._step is buffers


def test_what_is_not_covered_is_named(model, monkeypatch):
    from transformers import Gemma2Config, LlamaConfig, MistralConfig

    assert static_cache_obstacle(model) == "it runs on cpu"
    monkeypatch.setattr(static, "input_device", lambda model: torch.device("cuda:0"))
    monkeypatch.setattr(static, "has_triton", lambda: True)
    for capability, obstacle in (
        ((7, 5), "the kernel needs compute capability 8.0, this is 7.5"),
        ((9, 0), None),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, capability=capability: capability)
        assert static_cache_obstacle(model) == obstacle
    dynamic = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    attention = {"attn_implementation": model.config._attn_implementation}
    for config, obstacle in (
        (LlamaConfig(attn_implementation="eager"), "its attention is eager"),
        (Gemma2Config(**attention), "not made for gemma2 models"),
        (MistralConfig(sliding_window=16, **attention), "the model has sliding-window attention"),
        (LlamaConfig(rope_parameters=dynamic, **attention), "dynamic rotary positions depend on the longest row"),
        (LlamaConfig(head_dim=80, **attention), "no kernel for heads of 80"),
    ):
        monkeypatch.setattr(model, "config", config)
        assert static_cache_obstacle(model) == obstacle
    monkeypatch.setattr(model, "config", LlamaConfig(**attention))
    monkeypatch.setattr(static, "has_triton", lambda: False)
    assert static_cache_obstacle(model) == "Triton is not installed"
    monkeypatch.setattr(model, "hf_device_map", {"model": 0, "lm_head": 1}, raising=False)
    assert static_cache_obstacle(model) == "the model is spread over 2 devices"


@given(st.lists(st.one_of(st.none(), st.integers(0, 99)), min_size=1, max_size=40), st.integers(0, 8))
def test_closing_ranks_keeps_every_owner_and_moves_the_fewest_rows(owners, spare):
    going = [owner for owner in owners if owner is not None]
    rows = max(1, len(going) + spare)
    kept, moves = close_ranks(owners, rows)
    assert len(kept) == rows
    assert sorted(owner for owner in kept if owner is not None) == sorted(going)
    assert all(source >= rows > target and kept[target] == owners[source] for source, target in moves)
    assert all(kept[row] == owners[row] for row in range(min(rows, len(owners))) if owners[row] is not None)


@given(st.integers(1, 700), st.integers(1, 700))
def test_row_counts_hold_what_goes_and_fit_the_buffers(going, capacity):
    going = min(going, capacity)
    assert going <= row_count(going, capacity) <= capacity
    assert row_count(going, capacity) <= max(4, 2 * going)


@given(st.lists(st.integers(1, 2 * PROMPT_TOKENS), min_size=1, max_size=30))
def test_passes_cover_every_prompt_once_and_stay_bounded(lengths):
    passes = list(prompt_passes(lengths))
    assert [row for rows in passes for row in range(rows.start, rows.stop)] == list(range(len(lengths)))
    for rows in passes:
        count = rows.stop - rows.start
        assert count == 1 or count * max(lengths[rows]) <= PROMPT_TOKENS


@pytest.mark.gpu
def test_cuda_graphs_give_the_answers_of_one_by_one_generation(tiny, prompts):
    model = tiny.load().to("cuda")
    model.lm_head.weight.data[5] *= 1.5
    assert static_cache_obstacle(model) is None
    expected = [one_by_one(model, prompt) for prompt in prompts]
    decoder = StaticDecoder(model, GREEDY, graphs=True, steps_per_look=4)
    assert decoder.decode(prompts) == expected
    # Again with every graph captured, in another order, and with fewer rows than the buffers have.
    order = list(range(len(prompts)))
    random.Random(0).shuffle(order)
    assert decoder.decode([prompts[i] for i in order]) == [expected[i] for i in order]
    assert decoder.decode(prompts[:5]) == expected[:5]
    assert len(decoder._step._graphs.graphs) > 2
    decoder.release()
    options = {"end_token_ids": END, "max_new_tokens": CAP, "batch_size": 4}
    answers = generate_answers(model, tiny.tokenizer, prompts, **options)
    assert [answer.new_tokens for answer in answers] == [len(tokens) for tokens in expected]
