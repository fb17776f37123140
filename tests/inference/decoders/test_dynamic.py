"""Decoding with a growing cache: the tokens of whole rows, and rows that leave as they end."""

from greedy_reference import CAP, END, one_by_one, spy_on_rows

from medtune.inference.decoders.dynamic import DynamicDecoder
from medtune.inference.decoders.greedy import Greedy

GREEDY = Greedy(frozenset(END), CAP, pad_token_id=2)


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
