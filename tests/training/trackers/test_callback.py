"""A training's events reach the callback of a tracker, whose failures are its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from medtune.training.trackers.callback import TrackerCallback
from medtune.training.trackers.following import CallGuard

EVENTS = ("on_train_begin", "on_log", "on_save", "on_train_end")


class Theirs:
    """The callback of a library; `fails` at the event of that name."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[Any] = []
        self.fails = fails

    def __getattr__(self, event: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            self.calls.append((event, args, kwargs))
            if event == self.fails:
                raise ConnectionError("gone")

        return call


def followed_by(make: Any) -> Any:
    return SimpleNamespace(guard=CallGuard("wandb"), service=SimpleNamespace(callback=make), ending="failed")


def test_every_event_is_handed_on_as_it_came() -> None:
    theirs = Theirs()
    callback = TrackerCallback(followed_by(lambda: theirs))
    for event in EVENTS:
        getattr(callback, event)("args", "state", "control", logs={event: 1})
    assert theirs.calls == [(event, ("args", "state", "control"), {"logs": {event: 1}}) for event in EVENTS]


@pytest.mark.parametrize("fails", ["", "on_train_end"])
def test_a_training_has_finished_at_its_end_and_not_before(fails: str) -> None:
    callback = TrackerCallback(followed_by(lambda: Theirs(fails)))
    for event in EVENTS[:-1]:
        getattr(callback, event)(None, None, None)
        assert callback.followed.ending == "failed"
    callback.on_train_end(None, None, None)
    assert callback.followed.ending == "finished"


def test_a_failure_is_counted_and_the_next_event_handed_on() -> None:
    theirs = Theirs("on_log")
    callback = TrackerCallback(followed_by(lambda: theirs))
    callback.on_log(None, None, None)
    callback.on_save(None, None, None)
    assert callback.followed.guard.failures == 1
    assert [event for event, *_ in theirs.calls] == ["on_log", "on_save"]


def test_a_callback_that_cannot_be_made_gets_nothing() -> None:
    def refuse() -> None:
        raise ImportError("no such library")

    callback = TrackerCallback(followed_by(refuse))
    for event in EVENTS:
        getattr(callback, event)(None, None, None)
    assert callback.followed.guard.failures == 1
    assert callback.followed.ending == "finished"
