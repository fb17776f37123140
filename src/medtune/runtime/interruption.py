"""SIGINT and SIGTERM: the work in hand ends where it can be resumed, and the process with status 75."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from medtune.runtime.launch import world_size

# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again.
INTERRUPTED_STATUS = 75
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The process was asked to stop. Not an Exception, so that nothing handles it as an error and continues."""

    exit_status = INTERRUPTED_STATUS

    def __init__(self, signal_number: int):
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


_received: int | None = None
_deferrals = 0
_second_kills = True


@contextmanager
def handled(*, second_kills: bool = True) -> Iterator[None]:
    """In this block, a first SIGINT or SIGTERM raises Interrupted, at the end of `deferred()` if that is open.

    A second one kills, or raises Interrupted at once. Does nothing outside of the main thread, where Python allows no
    handlers.
    """
    global _received, _second_kills
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _second_kills = second_kills
    before = {number: signal.signal(number, _handle) for number in _SIGNALS}
    report = sys.unraisablehook

    def report_other(swallowed: sys.UnraisableHookArgs) -> None:
        # A signal that comes during an object's clean-up: `raise_if_requested` raises it again.
        if not isinstance(swallowed.exc_value, Interrupted):
            report(swallowed)

    sys.unraisablehook = report_other
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
        _received = None


@contextmanager
def deferred() -> Iterator[None]:
    """In this block signals interrupt nothing: it checks `requested()` itself. Interrupted is raised at its end."""
    global _deferrals
    raise_if_requested()
    _deferrals += 1
    try:
        yield
    finally:
        _deferrals -= 1
    raise_if_requested()


def requested() -> bool:
    """Whether a signal has come."""
    return _received is not None


def raise_if_requested() -> None:
    """Raises Interrupted if a signal has come, in case a library's clean-up code swallowed it."""
    if _received is not None:
        raise Interrupted(_received)


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number
    # Each of several processes gets the first signal twice, from the terminal and from their launcher, which itself
    # kills what takes too long. Functions and not SIG_IGN and SIG_DFL: for a signal that came in between and waits for
    # its handler, Python would print a traceback.
    several = world_size() > 1
    for other in _SIGNALS:
        signal.signal(other, _ignore if several else _kill if _second_kills else _stop)
    if not _deferrals:
        raise Interrupted(number)


def _ignore(number: int, frame: FrameType | None) -> None:
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _kill(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
