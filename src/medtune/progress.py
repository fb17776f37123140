"""Progress bars on stderr, and the log lines that go with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from medtune.hardware import rank
from medtune.terminal import harmless

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@cache
def console() -> Console:
    """The console on stderr: stdout is for results. Of several processes only the first speaks."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, quiet=rank() != 0)


def say(message: str) -> None:
    """One line to the user, on stderr."""
    console().print(harmless(message), markup=False, soft_wrap=True)


@contextmanager
def progress_bar(description: str, total: int, start: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar with counts and the time left, from `start`; yields a function that advances it.

    Where stderr is no terminal (a log file, a notebook's CI run) a line at the end says how long it took.
    """
    with progress(description, total, start) as update:
        yield lambda done: update(done, "")


@contextmanager
def progress(description: str, total: int, start: int = 0) -> Iterator[Callable[[int, str], None]]:
    """As `progress_bar`; the yielded function also takes a text to show, such as a rate."""
    import time

    began = time.monotonic()
    bar = _bar()
    note = ""
    with bar:
        task = bar.add_task(description, total=total, completed=start, note="")

        def update(done: int, text: str) -> None:
            nonlocal note
            note = text
            bar.update(task, advance=done, note=text)

        yield update
        done = int(bar.tasks[0].completed)
    if not console().is_terminal:
        say(f"{description}: {done}/{total} in {time.monotonic() - began:.1f} s {note}".rstrip())


def _bar() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    ]
    return Progress(*columns, console=console(), transient=False, disable=not console().is_terminal)
