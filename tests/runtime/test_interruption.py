"""Signals in places where Python swallows what a handler raises."""

from __future__ import annotations

import os
import signal

import pytest

from medtune.runtime import interruption


class Slow:
    """Told to stop in its clean-up."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_BLOCK, [])  # the handler runs here at the latest


class Broken:
    """Fails in its clean-up."""

    def __del__(self) -> None:
        raise ValueError("broken")


def test_a_signal_in_a_clean_up_prints_nothing_and_is_not_forgotten(capfd) -> None:
    with interruption.handled(second_kills=False):
        Slow()
        with pytest.raises(interruption.Interrupted):
            interruption.raise_if_requested()
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_failures_of_a_clean_up_are_still_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda swallowed: reported.append(swallowed.exc_type))
    with interruption.handled(second_kills=False):
        Broken()
    assert reported == [ValueError]
