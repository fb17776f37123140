"""When requests enter the rows that are answered, with slots that only count."""

from __future__ import annotations

import pytest

from medtune.inference.serving import lane as lane_module
from medtune.inference.serving.answering import Answering, Options
from medtune.inference.serving.lane import LONGEST_PAUSE, Lane, Request
from medtune.inference.serving.slots import Slots
from tiny_model import Tiny


class CountingSlots(Slots):
    """Every new token is 5; `entered` has how many rows came in at each time, `steps` how many were taken."""

    def __init__(self) -> None:
        self.rows = 0
        self.entered: list[int] = []
        self.steps: list[int] = []

    def join(self, prompts, choose):
        self.entered.append(len(prompts))
        self.rows += len(prompts)
        return [5] * len(prompts)

    def run(self, steps, choose):
        self.steps.append(steps)
        return [[5] * steps for _ in range(self.rows)]

    def keep(self, places):
        self.rows = len(places)
        return list(places)

    def release(self):
        self.rows = 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(lane_module.time, "monotonic", lambda: now[0])
    return now


def waiting(lane: Lane, tiny: Tiny, *caps: int) -> list[Request]:
    requests = [Request([1, 2], Options(), cap, tiny.tokenizer, Answering(2)) for cap in caps]
    lane.waiting.extend(requests)
    return requests


def test_where_few_are_answered_one_enters_at_once(tiny: Tiny, clock) -> None:
    lane = Lane(CountingSlots(), 16, ())
    waiting(lane, tiny, *[50] * 7)
    lane.turn(1)
    waiting(lane, tiny, 50)
    lane.turn(1)
    assert lane.slots.entered == [7, 1]


def test_where_many_are_answered_they_enter_several_at_once_or_after_a_pause(tiny: Tiny, clock) -> None:
    lane = Lane(CountingSlots(), 16, ())
    waiting(lane, tiny, *[50] * 12)
    lane.turn(1)
    waiting(lane, tiny, 50)
    lane.turn(1)
    assert lane.slots.entered == [12]
    waiting(lane, tiny, 50)
    lane.turn(1)
    assert lane.slots.entered == [12, 2]
    waiting(lane, tiny, 50)
    clock[0] += LONGEST_PAUSE / 2
    lane.turn(1)
    assert lane.slots.entered == [12, 2]
    clock[0] += LONGEST_PAUSE
    lane.turn(1)
    assert lane.slots.entered == [12, 2, 1]


def test_a_row_that_ends_shortens_no_look_and_gets_no_token_past_its_cap(tiny: Tiny, clock) -> None:
    lane = Lane(CountingSlots(), 16, ())
    short, long = waiting(lane, tiny, 3, 12)
    lane.turn(8)
    assert lane.slots.steps == [8]
    assert (len(short.tokens), len(long.tokens)) == (3, 9)
    assert lane.live == [long]
    lane.turn(8)
    assert lane.slots.steps == [8, 3]  # as many as the longest still needs
    assert (long.tokens, lane.live) == ([5] * 12, [])
