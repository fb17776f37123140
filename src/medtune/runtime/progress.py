"""Progress bars on stderr, and the log lines that go with them; or, for a program, events to a listener of its own."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from medtune.runtime.launch import is_main
from medtune.runtime.terminal import harmless, print_text

if TYPE_CHECKING:
    import rich.progress
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come: `done` of `total` `unit` of one piece of work, such as "Training", in a stage.

    A stage reports its beginning and end with an empty `work`, 0 and 1 of 1 "stages". Outside of stages, as in `plan`,
    `stage` is empty. `note` is the text beside the bar, such as a rate.
    """

    stage: str
    work: str
    done: int
    total: int
    unit: str
    note: str = ""


Listener = Callable[[Progress], None]
# The variable that names a file for another process to read progress from.
EVENTS = "MEDTUNE_EVENTS"
# Seconds between the lines of one piece of work where no bar can be drawn.
LINE_SECONDS = 60
_log = logging.getLogger("medtune")
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_stage: ContextVar[str] = ContextVar("stage", default="")


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """In this block `listener` receives all progress and no bars are drawn; with None they are drawn as usual."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def listened_to_by_file() -> Iterator[None]:
    """In this block progress goes, as lines of JSON, to the file that the environment names, if it does."""
    if not (name := os.environ.get(EVENTS)) or not is_main():
        yield
        return
    with (
        open(name, "a", encoding="utf-8", buffering=1) as file,
        listening(lambda progress: print(json.dumps(asdict(progress)), file=file)),
    ):
        yield


@contextmanager
def stage_progress(name: str) -> Iterator[None]:
    """In this block progress belongs to the stage `name`."""
    token = _stage.set(name)
    try:
        _tell(Progress(name, "", 0, 1, "stages"))
        yield
        _tell(Progress(name, "", 1, 1, "stages"))
    finally:
        _stage.reset(token)


def tell_skipped(name: str) -> None:
    """Report a stage that was complete before as done."""
    _tell(Progress(name, "", 1, 1, "stages", "complete, skipped"))


def _tell(progress: Progress) -> None:
    if listener := _listener.get():
        listener(progress)


@cache
def console() -> Console:
    """The console on stderr: stdout is for results. Only the first of several processes writes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=not is_main())


def say(message: str, *, verbatim: bool = False) -> None:
    """One line to the user, in medtune's log: on stderr, unless a program takes it elsewhere.

    A `verbatim` line, such as a command to paste, is not wrapped.
    """
    _log.info("%s", message, extra={"verbatim": verbatim})


class _Terminal(logging.Handler):
    """Log lines on stderr, between the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        message = harmless(record.getMessage())
        if record.__dict__.get("verbatim"):
            console().print(message, markup=False, soft_wrap=True)
        else:
            print_text(message, console())


@contextmanager
def lines_on_terminal() -> Iterator[None]:
    """In this block medtune's log is written to stderr, unless the program has given its logger a handler of its own.

    Nor is a level changed that the program has set.
    """
    handler, level = _Terminal(), _log.level
    if not _log.handlers:
        _log.addHandler(handler)
    if level == logging.NOTSET:
        _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.setLevel(level)
        _log.removeHandler(handler)


class Advance(Protocol):
    """What moves a bar."""

    def __call__(self, done: int, note: str = "") -> None:
        """Move it by `done`, with `note` beside it, such as a rate."""


@contextmanager
def progress_bar(description: str, total: int, start: int = 0, *, unit: str = "rows") -> Iterator[Advance]:
    """A bar with counts and the time left, from `start`; yields a function that advances it.

    Where no bar can be drawn (a log file, a notebook's CI run) a line a minute says how far it has come, and one at the
    end how long it took.
    """
    began, shown = time.monotonic(), ""
    said, in_lines = began, _listener.get() is None and not _can_draw()
    with _bar() as bar:
        task = bar.add_task(description, total=total, completed=start, note="")
        _tell(Progress(_stage.get(), description, start, total, unit))

        def advance(done: int, note: str = "") -> None:
            nonlocal shown, said
            shown = note
            bar.update(task, advance=done, note=note)
            reached = int(bar.tasks[0].completed)
            _tell(Progress(_stage.get(), description, reached, total, unit, note))
            if in_lines and (now := time.monotonic()) - said >= LINE_SECONDS and start < reached < total:
                said = now
                left = (now - began) / (reached - start) * (total - reached)
                end = f"; {note}" if note else ""
                say(f"{description}: {reached}/{total} {unit}, {times(now - began, left)}{end}")

        yield advance
        done = int(bar.tasks[0].completed)
    if in_lines:
        say(f"{description}: {done}/{total} in {time.monotonic() - began:.1f} s {shown}".rstrip())


def _can_draw() -> bool:
    """In a terminal, and in a notebook that has the widgets which rich draws its bars with."""
    return console().is_terminal or (console().is_jupyter and find_spec("ipywidgets") is not None)


def times(elapsed: float | None, left: float | None, *, is_done: bool = False) -> str:
    """The text at the end of a bar, from seconds: `0:12 elapsed, 0:40 left`; None is a time that is not known yet."""
    return f"{_clock(elapsed)} elapsed" if is_done else f"{_clock(elapsed)} elapsed, {_clock(left)} left"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(max(0, int(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _bar() -> rich.progress.Progress:
    from rich import progress as bars
    from rich.table import Column
    from rich.text import Text

    class Times(bars.ProgressColumn):
        max_refresh = 0.5  # as rich's own columns: an estimate of the first rows jumps

        def render(self, task: bars.Task) -> Text:
            spent = task.finished_time if task.finished else task.elapsed
            return Text(times(spent, task.time_remaining, is_done=task.finished))

    columns: list[Any] = [
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=24),
        bars.MofNCompleteColumn(table_column=Column(no_wrap=True)),  # where room is short, the bar gives way
        bars.TextColumn("{task.fields[note]}"),
        Times(table_column=Column(no_wrap=True)),
    ]
    hidden = _listener.get() is not None or not _can_draw()
    return bars.Progress(*columns, console=console(), transient=False, disable=hidden)
