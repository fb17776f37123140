"""Batched greedy answers are the answers of one-by-one generation."""

import json
import random
import shutil

import pytest
import torch
from greedy_reference import CAP, END, generate_answers, one_by_one, spy_on_rows

from medtune.errors import ModelError
from medtune.inference import generation
from medtune.inference.decoders.greedy import Greedy
from medtune.inference.decoders.static import StaticDecoder
from medtune.inference.generation import answer_batches, choose_batch_size, plan_batches
from medtune.records import Answer
from medtune.run_dir.partial_results import BatchWork


def batched(model, tiny, prompts, size):
    return generate_answers(model, tiny.tokenizer, prompts, end_token_ids=END, max_new_tokens=CAP, batch_size=size)


@pytest.mark.parametrize("size", [1, 4, 32])
def test_equals_greedy_decoding_without_a_cache(model, tiny, prompts, size):
    answers = batched(model, tiny, prompts, size)
    expected = [one_by_one(model, prompt) for prompt in prompts]
    reasons = {answer.finish_reason for answer in answers}
    assert reasons == {"stop", "length"}, "the test needs both kinds"
    for answer, tokens in zip(answers, expected, strict=True):
        stopped = tokens[-1] == 5
        assert answer.new_tokens == len(tokens)
        assert answer.finish_reason == ("stop" if stopped else "length")
        text = tiny.tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=True)
        assert answer.text == text.strip()


def test_the_order_of_the_rows_does_not_matter(model, tiny, prompts):
    order = list(range(len(prompts)))
    random.Random(0).shuffle(order)
    shuffled = batched(model, tiny, [prompts[i] for i in order], 4)
    straight = batched(model, tiny, prompts, 4)
    assert [straight[i] for i in order] == shuffled


def test_sampling_defaults_of_a_model_do_not_leak_in(tiny, tmp_path, prompts):
    from medtune.config.schema import Config
    from medtune.model.loaded import load_model

    shutil.copytree(tiny.path, tmp_path / "sampling")
    file = tmp_path / "sampling" / "generation_config.json"
    shipped = {"do_sample": True, "temperature": 5.0, "top_p": 0.5, "repetition_penalty": 3.0, "min_new_tokens": 20}
    file.write_text(json.dumps({**json.loads(file.read_text()), **shipped}))
    answers = []
    for folder in (tiny.path, tmp_path / "sampling"):
        values = {"model": {"base": str(folder), "quantization": "none"}, "data": {"source": "x"}}
        loaded = load_model(Config.model_validate(values), for_training=False)
        assert loaded.end_token_ids == [5]
        answers.append(batched(loaded.model, tiny, prompts, 4))
    assert answers[0] == answers[1]


def test_batch_size_follows_free_memory(model, monkeypatch):
    sizes = {}
    for free in (1, 2_000_000, 10**15):
        monkeypatch.setattr(generation, "free_bytes", lambda device, free=free: free)
        sizes[free] = choose_batch_size(model, longest_prompt=100, max_new_tokens=100)
    # 2 layers x 2 (key, value) x 2 heads x 16 x 4 bytes x 200 tokens, and 400 logits of 4 + 4 bytes.
    a_row = 2 * 2 * 2 * 16 * 4 * 200 + model.config.vocab_size * 8
    assert sizes == {1: 1, 2_000_000: 1_000_000 // a_row, 10**15: 32}


def test_on_a_gpu_the_batch_leaves_room_for_reading_prompts(model, monkeypatch):
    monkeypatch.setattr(generation, "input_device", lambda model: torch.device("cuda:0"))
    monkeypatch.setattr(generation, "free_bytes", lambda device: 2 * 200_000_000)
    # A row as above, and 6 x 4 bytes x (64 + 128) of hidden and feed-forward values a token that is read.
    a_row, a_token = 2 * 2 * 2 * 16 * 4 * 3200 + model.config.vocab_size * 8, 6 * 4 * (64 + 128)
    for obstacle, expected in (
        (None, (200_000_000 - 8192 * a_token) // a_row),
        ("", 200_000_000 // (a_row + 3000 * a_token)),
    ):
        monkeypatch.setattr(generation, "static_cache_obstacle", lambda model, obstacle=obstacle: obstacle)
        assert choose_batch_size(model, longest_prompt=3000, max_new_tokens=200) == expected
    monkeypatch.setattr(generation, "free_bytes", lambda device: 10**15)
    assert choose_batch_size(model, longest_prompt=100, max_new_tokens=100) == 512


def test_finished_rows_leave_the_batch(model, tiny, prompts, monkeypatch):
    seen = spy_on_rows(model, monkeypatch)
    answers = batched(model, tiny, prompts, 32)
    longest = max(map(len, prompts))
    going = [sum(answer.new_tokens > step for answer in answers) for step in range(CAP)]
    assert len(set(going)) > 2, "the test needs answers that end at several steps"
    assert seen == [(going[0], longest), *((rows, 1) for rows in going[1:] if rows)]


def test_adapters_answer_too_and_can_be_switched_off(tiny, prompts):
    from medtune.config.training import LoraSection
    from medtune.model.adapters import attach_new_adapter

    plain = [answer.text for answer in batched(tiny.load(), tiny, prompts, 4)]
    model = attach_new_adapter(tiny.load(), LoraSection(), seed=0).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    answers = batched(model, tiny, prompts, 4)
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = one_by_one(model, prompt)
        assert answer.new_tokens == len(tokens)
        assert answer.text == tiny.tokenizer.decode([t for t in tokens if t != 5], skip_special_tokens=True).strip()
    assert [answer.text for answer in answers] != plain
    with model.disable_adapter():
        assert [answer.text for answer in batched(model, tiny, prompts, 4)] == plain


def test_sliding_windows_are_exact(tiny, prompts, monkeypatch):
    from transformers import MistralConfig, MistralForCausalLM

    from medtune.model.attention import register_packed_attention

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tiny.tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=16, initializer_range=0.1, pad_token_id=2,
        attn_implementation=register_packed_attention(),
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    model.lm_head.weight.data[5] *= 1.5
    seen = spy_on_rows(model, monkeypatch)
    answers = batched(model, tiny, prompts, 32)
    assert min(rows for rows, _ in seen) < len(prompts), "the test needs rows that leave"
    monkeypatch.undo()
    assert min(map(len, prompts)) > 16, "the test needs prompts beyond the window"
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = one_by_one(model, prompt)
        assert answer.new_tokens == len(tokens)
        assert answer.text == tiny.tokenizer.decode([t for t in tokens if t != 5], skip_special_tokens=True).strip()


@pytest.fixture
def scarce(model, monkeypatch):
    """Memory for so many rows at once; a list of the rows of every prompt pass that was tried."""

    def limit(most):
        forward, tried = type(model).forward, []

        def limited(**inputs):
            rows, tokens = inputs["input_ids"].shape
            if tokens > 1:
                tried.append(rows)
            if rows > most:
                raise torch.OutOfMemoryError
            return forward(model, **inputs)

        monkeypatch.setattr(model, "forward", limited)
        return tried

    return limit


def test_out_of_memory_halves_the_batch_and_loses_no_row(model, tiny, prompts, scarce, capfd):
    straight = batched(model, tiny, prompts, 4)
    sizes = scarce(2)
    assert batched(model, tiny, prompts, 8) == straight
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert capfd.readouterr().err.splitlines() == [
        "out of memory with 8 questions at once; continuing with 4",
        "out of memory with 4 questions at once; continuing with 2",
    ]


def test_out_of_memory_with_one_question_is_said_in_one_line(model, tiny, prompts, scarce):
    scarce(0)
    with pytest.raises(ModelError) as error:
        batched(model, tiny, prompts[:2], 1)
    longest = max(map(len, prompts[:2]))
    assert str(error.value) == (
        f"out of memory with one question at once (generation.batch_size 1), its prompt of {longest} tokens and "
        f"generation.max_new_tokens {CAP}; lower that, or free memory on the device"
    )


def test_a_batch_made_again_in_halves_is_that_of_a_plan_of_halves(model, tiny, prompts, scarce):
    greedy = Greedy.of(tiny.tokenizer, END, CAP)
    work = BatchWork(plan_batches(prompts, 4), Answer)
    first = work.planned[0]
    answer_batches(model, tiny.tokenizer, prompts, greedy, work)
    assert work.times_out_of_memory == 0
    again = BatchWork(plan_batches(prompts, 4), Answer, entries=[{"rows": first, "results": [["", 1, "stop"]] * 4}])
    seen = []
    scarce(2)
    answer_batches(model, tiny.tokenizer, prompts, greedy, again, seen.append)
    assert again.times_out_of_memory == 1
    assert seen == [2, 2, 2, 1]
    assert again.planned == [rows[i : i + 2] for rows in work.planned[1:] for i in (0, 2) if rows[i : i + 2]]
    assert [again.done[row] for row in first] == [Answer("", 1, "stop")] * 4
    assert all(again.done[row] == work.done[row] for row in work.done if row not in first)


def test_the_user_is_told_why_a_gpu_goes_the_slow_way(model, tiny, prompts, monkeypatch):
    said = []
    monkeypatch.setattr(generation, "say", said.append)
    options = {"end_token_ids": END, "max_new_tokens": 2, "batch_size": 2}
    generate_answers(model, tiny.tokenizer, prompts[:2], **options)
    assert said == []
    monkeypatch.setattr(generation, "static_cache_obstacle", lambda model: "a reason")
    monkeypatch.setattr(generation, "input_device", lambda model: torch.device("cuda:0"))
    generate_answers(model, tiny.tokenizer, prompts[:2], **options)
    assert said == ["answers come without static cache and CUDA graphs: a reason"]


def test_answers_that_go_on_take_the_steps_that_they_would_have_taken(model, tiny, prompts, monkeypatch):
    monkeypatch.setattr(
        generation, "_choose_decoder", lambda model, greedy, graphs: StaticDecoder(model, greedy, graphs=False)
    )
    greedy = Greedy.of(tiny.tokenizer, END, CAP)
    seen, work = spy_on_rows(model, monkeypatch), BatchWork(plan_batches(prompts, 4), Answer)
    answer_batches(model, tiny.tokenizer, prompts, greedy, work)
    whole = list(seen)
    done = [row for rows in work.planned[:-1] for row in rows]
    entries = [{"rows": done, "results": [["", 1, "stop"]] * len(done)}]
    del seen[:]
    answer_batches(model, tiny.tokenizer, prompts, greedy, BatchWork(work.planned, Answer, entries=entries))
    assert len({rows for rows, _ in seen}) > 1
    assert seen == whole[-len(seen) :]
