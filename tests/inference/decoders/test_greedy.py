"""Greedy decoding, token by token: the most probable one, and of equals the first; with a growing cache whole rows."""

import pytest
import torch
from greedy_reference import CAP, END, one_by_one, spy_on_rows

from medtune.inference.decoders.greedy import DynamicDecoder, Greedy, best_tokens, pad_left
from medtune.inference.decoders.static import StaticDecoder

GREEDY = Greedy(frozenset(END), CAP, pad_token_id=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("vocabulary", [13, 128_256])
def test_the_first_of_equal_scores_wins(dtype, vocabulary):
    logits = torch.full((4, vocabulary), -1.0, dtype=dtype)
    for row, places in enumerate([(3, 7, 12), (0, 12), (11, 12)]):
        logits[row, list(places)] = 2.5
    # The last row's are all equal.
    assert best_tokens(logits).tolist() == [3, 0, 11, 0]


def test_numbers_that_differ_beyond_their_own_precision_are_equal():
    logits = torch.tensor([[1.0, 1.0 + 2**-12, 1.0 + 2**-7]])
    assert best_tokens(logits).tolist() == [2]
    assert best_tokens(logits[:, :2]).tolist() == [1]
    assert best_tokens(logits[:, :2].bfloat16()).tolist() == [0]


@pytest.mark.parametrize("decoder", [DynamicDecoder, lambda *given: StaticDecoder(*given, graphs=False)])
def test_every_step_takes_the_first_of_equal_scores(tiny, prompts, decoder):
    model = tiny.load()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert decoder(model, GREEDY).decode(prompts[:3]) == [[0] * CAP] * 3


def test_prompts_are_filled_up_on_the_left_and_count_their_own_tokens():
    ids, mask, positions = pad_left([[5, 6, 7], [8]], 2, torch.device("cpu"))
    assert ids.tolist() == [[5, 6, 7], [2, 2, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]


def test_fillers_are_the_tokenizers_own(tiny):
    assert Greedy.of(tiny.tokenizer, [5, 1], 9) == Greedy(frozenset({1, 5}), 9, tiny.tokenizer.pad_token_id)


def test_rows_of_different_lengths_give_the_tokens_of_one_at_a_time(model, prompts, monkeypatch):
    expected = [one_by_one(model, prompt) for prompt in prompts]
    assert {answer[-1] == 5 for answer in expected} == {True, False}, "the test needs both kinds"
    seen = spy_on_rows(model, monkeypatch)
    decoder = DynamicDecoder(model, GREEDY)
    assert decoder.decode(prompts) == expected
    # Prompts first; then each step has a token of every row that has not ended.
    assert seen[0] == (len(prompts), max(map(len, prompts)))
    assert seen[1:] == [(sum(len(answer) > step for answer in expected), 1) for step in range(1, CAP)]


def test_nothing_is_kept_from_batch_to_batch(model, prompts):
    decoder = DynamicDecoder(model, GREEDY)
    decoder.reserve(100, 1000)
    first = decoder.decode(prompts[:2])
    decoder.release()
    assert decoder.decode(prompts[:2]) == first
