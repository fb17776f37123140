"""Batched greedy answers are the answers of one-by-one generation."""

import json
import random
import shutil

import pytest
import torch

from medtune.inference.generation import choose_batch_size, generate_answers
from medtune.prompts import PromptRenderer

CAP = 24
END = [5]


@pytest.fixture(scope="module")
def prompts(tiny):
    renderer = PromptRenderer(tiny.tokenizer, "Be kind.")
    return [renderer.prompt_ids("What causes " + "gout " * (1 + i * i % 13) + f"{i} ?") for i in range(11)]


@pytest.fixture(scope="module")
def model(tiny):
    model = tiny.load()
    # A random model seldom stops: make the end token likely enough that some answers end by themselves.
    model.lm_head.weight.data[5] *= 1.5
    return model


def one_by_one(model, tokenizer, prompt):
    tokens = list(prompt)
    for _ in range(CAP):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
        if tokens[-1] == 5:
            break
    return tokens[len(prompt) :]


def batched(model, tiny, prompts, size):
    return generate_answers(model, tiny.tokenizer, prompts, end_token_ids=END, max_new_tokens=CAP, batch_size=size)


@pytest.mark.parametrize("size", [1, 4, 32])
def test_equals_greedy_decoding_without_a_cache(model, tiny, prompts, size):
    answers = batched(model, tiny, prompts, size)
    expected = [one_by_one(model, tiny.tokenizer, prompt) for prompt in prompts]
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
    from medtune.config import Config
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
    from medtune.inference import generation

    sizes = {}
    for free in (1, 2_000_000, 10**15):
        monkeypatch.setattr(generation, "free_bytes", lambda device, free=free: free)
        sizes[free] = choose_batch_size(model, longest_prompt=100, max_new_tokens=100)
    # 2 layers x 2 (key, value) x 2 heads x 16 x 4 bytes x 200 tokens, and 400 logits of 4 + 4 bytes.
    a_row = 2 * 2 * 2 * 16 * 4 * 200 + model.config.vocab_size * 8
    assert sizes == {1: 1, 2_000_000: 1_000_000 // a_row, 10**15: 32}


def test_out_of_memory_halves_the_batch_and_loses_no_row(model, tiny, prompts, monkeypatch):
    straight = batched(model, tiny, prompts, 4)
    generate, sizes = model.generate, []

    def scarce(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", scarce)
    assert batched(model, tiny, prompts, 8) == straight
    assert sizes[:3] == [8, 4, 2]
    monkeypatch.setattr(model, "generate", lambda **inputs: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        batched(model, tiny, prompts, 8)
