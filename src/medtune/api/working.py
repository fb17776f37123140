"""Calls in a process that outlives them, such as a notebook's or a server's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from medtune.api.spelling import spelled_as_calls
from medtune.errors import DiskError, Option, RunDirError
from medtune.pipeline.edge import process_edge
from medtune.runtime import interruption
from medtune.runtime.distributed import require_single_process
from medtune.runtime.process import prepare_process
from medtune.runtime.progress import Listener, listening

# Signals, settings and the memory that a plan counts on are the process's: one call works at a time.
_at_work = threading.Lock()


class RunInterrupted(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C, a notebook's stop button or SIGTERM, and has kept what it had.

    The same call with `resume=True` resumes it. Not an Exception, so that nothing handles it as an error.
    """


@contextmanager
def working(progress: Listener | None = None, *, processes: Literal["one", "all"] = "one") -> Iterator[None]:
    """Locks, signal handlers, settings and the memory of models end with this block, however it ends.

    Raises RunInterrupted where a signal stopped it, DiskError where a disk did, and RunDirError if another thread of
    this process is in such a block, or if several processes were launched for what takes one.
    """
    if processes == "one":
        require_single_process("this call")
    if not _at_work.acquire(blocking=False):
        raise RunDirError("medtune is at work in another thread of this process", fix="wait for it to end")
    try:
        with spelled_as_calls(), _errors_of_a_call(), process_edge(), listening(progress):
            prepare_process()
            yield
    finally:
        _at_work.release()


@contextmanager
def _errors_of_a_call() -> Iterator[None]:
    try:
        yield
    except interruption.Interrupted as stopped:
        raise RunInterrupted(f"interrupted ({stopped}); call it again with resume=True to go on") from None
    except DiskError as error:
        if error.__cause__ is None:
            raise
        (disk,) = error.problems
        fix = (disk.fix, ", then go on with ", Option("resume"))
        raise DiskError(disk.what, disk.problem, fix) from error.__cause__
