"""Tokens that are drawn: as often as they are probable, none below top_p, each row by its own generator."""

import random
from collections import Counter

import torch

from medtune.inference.serving.sampling import Draws, chooser

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -30.0]])


def drawn(temperature, top_p, count=4000):
    choose = chooser([Draws(temperature, top_p, random.Random(3))])
    return Counter(int(choose(LOGITS)) for _ in range(count))


def test_nothing_is_drawn_where_all_rows_are_greedy():
    assert chooser([None, None]) is None


def test_tokens_come_as_often_as_they_are_probable():
    counts = drawn(1.0, 1.0)
    wanted = LOGITS.softmax(-1)[0]
    for token in range(3):
        assert abs(counts[token] / 4000 - float(wanted[token])) < 0.03
    assert counts[3] == 0


def test_the_temperature_flattens_or_sharpens():
    assert drawn(0.01, 1.0) == {0: 4000}
    assert drawn(2.0, 1.0)[2] > drawn(1.0, 1.0)[2]


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    assert set(drawn(1.0, 0.5)) == {0}  # it has 0.66 by itself
    assert set(drawn(1.0, 0.7)) == {0, 1}
    assert set(drawn(1.0, 0.0)) == {0}


def test_rows_beside_a_drawn_one_stay_greedy_and_its_draws_are_its_own():
    alone = chooser([Draws(1.0, 1.0, random.Random(7))])
    beside = chooser([None, Draws(1.0, 1.0, random.Random(7)), None])
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    for _ in range(20):
        chosen = beside(logits)
        assert int(chosen[1]) == int(alone(logits[1:2]))
        assert chosen[[0, 2, 3]].tolist() == logits[[0, 2, 3]].argmax(-1).tolist()
