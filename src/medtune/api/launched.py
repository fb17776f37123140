"""A run in processes of its own, one a GPU: what a notebook calls, which must not hold a GPU itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import IO

from medtune.api.working import RunInterrupted
from medtune.config.recipes.yaml_text import dump_config
from medtune.config.schema import Config
from medtune.errors import MedtuneError
from medtune.runtime.interruption import INTERRUPTED_STATUS
from medtune.runtime.progress import EVENTS, Advance, Listener, Progress, lines_on_terminal, progress_bar, say

# Begins each line that is an error's and not the log's.
_MARK = "medtune: "
# Seconds between looks for progress.
_MOMENT = 0.2


def run_launched(
    config: Config, path: Path, gpus: int | str, *, options: Sequence[str], listener: Listener | None = None
) -> None:
    """`medtune run` on so many GPUs, or "all", as a child process whose log and progress are shown here.

    Raises MedtuneError with its line where it fails, and RunInterrupted where a signal stopped it.
    """
    with TemporaryDirectory() as temporary:
        recipe, events = Path(temporary, "recipe.yaml"), Path(temporary, "events.jsonl")
        recipe.write_text(dump_config(config), encoding="utf-8")
        events.touch()
        words = ["run", str(recipe), "--run-dir", str(path), "--gpus", str(gpus), *options]
        child = subprocess.Popen(
            [sys.executable, "-m", "medtune", *words],
            env={**os.environ, EVENTS: str(events)},
            stdout=subprocess.DEVNULL,  # the ending, which a caller has as values
            stderr=subprocess.PIPE,
            text=True,
        )
        errors: list[str] = []
        with lines_on_terminal(), _Shown(listener) as shown, events.open(encoding="utf-8") as told:
            reader = Thread(target=_read_log, args=(child.stderr, errors))
            reader.start()
            with _handing_signals_on(child):
                while child.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(_MOMENT)
                    _tell_new(told, shown)
                reader.join()
                _tell_new(told, shown)
    if child.returncode in (INTERRUPTED_STATUS, 128 + signal.SIGINT):
        raise RunInterrupted("interrupted; call it again with resume=True to go on")
    if child.returncode:
        raise MedtuneError("\n".join(errors) or f"the processes of the run ended with status {child.returncode}")


def _read_log(log: IO[str], errors: list[str]) -> None:
    """Show a child's log until its end; its lines of errors go to `errors`."""
    with log:
        for line in log:
            if line.startswith(_MARK):
                errors.append(line.removeprefix(_MARK).rstrip("\n"))
            else:
                say(line.rstrip("\n"), verbatim=True)


@contextmanager
def _handing_signals_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """In this block a signal to this process, as a notebook's stop button sends it, goes to the child, which ends."""
    if current_thread() is not main_thread():  # where Python allows no handlers
        yield
        return

    def hand_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell_new(told: IO[str], shown: _Shown) -> None:
    """Show the progress that has been told since the last time."""
    while True:
        place = told.tell()
        line = told.readline()
        if not line.endswith("\n"):  # not whole yet
            told.seek(place)
            return
        shown.tell(Progress(**json.loads(line)))


class _Shown:
    """Another process's progress, told to a listener or drawn as this process's own."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._bar = ExitStack()
        self._advance: Advance | None = None
        self._last: Progress | None = None

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def tell(self, progress: Progress) -> None:
        if self._listener is not None:
            self._listener(progress)
            return
        if self._last is None or (self._last.stage, self._last.work) != (progress.stage, progress.work):
            self._bar.close()
            self._advance, done = None, progress.done
            if progress.work:
                bar = progress_bar(progress.work, progress.total, progress.done, unit=progress.unit)
                self._advance = self._bar.enter_context(bar)
        else:
            done = self._last.done
        if self._advance is not None:
            self._advance(progress.done - done, progress.note)
        self._last = progress
