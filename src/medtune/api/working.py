"""What a call that works in a run needs in a process that outlives it, such as a notebook's or a server's."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from medtune.api.spelling import spelled_as_calls
from medtune.errors import DiskError, Option, RunDirError
from medtune.run_dir.lock import locked_folders, release_locks
from medtune.runtime import interruption
from medtune.runtime.hardware import release_memory
from medtune.runtime.process import prepare_process
from medtune.runtime.progress import Listener, listening
from medtune.storage.disk_errors import describe_disk_error, quiet_threads

# Signals, warnings and the memory that a plan counts on are the process's: one call works at a time.
_at_work = threading.Lock()


class RunInterrupted(KeyboardInterrupt):
    """A run was asked to stop, by Ctrl-C, a notebook's stop button or SIGTERM, and has kept what it had.

    The same call with `resume=True` goes on from there. No Exception, so that nothing takes it for an error.
    """


@contextmanager
def working(progress: Listener | None = None) -> Iterator[None]:
    """Locks, signal handlers and the memory of models end with this block, however it ends.

    Raises RunInterrupted where a signal stopped it, DiskError where a disk did, and RunDirError if another thread of
    this process is in such a block.
    """
    if not _at_work.acquire(blocking=False):
        raise RunDirError("medtune is at work in another thread of this process", fix="wait for it to end")
    try:
        with spelled_as_calls(), warnings.catch_warnings(), listening(progress), quiet_threads(), _interruptible():
            prepare_process()
            yield
            interruption.raise_if_requested()
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        release_locks()
        release_memory()
        _at_work.release()


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        # A second signal would kill the command; a notebook's kernel holds more than this run.
        with interruption.handled(second_kills=False):
            try:
                yield
            except Exception as error:
                interruption.raise_if_requested()  # a library may make an error of it
                found = describe_disk_error(error, elsewhere=next(iter(locked_folders()), "the disk"))
                if found is None or isinstance(error, DiskError):
                    raise
                (disk,) = found.problems
                raise DiskError(disk.what, disk.problem, (disk.fix, ", then go on with ", Option("resume"))) from error
    except interruption.Interrupted as stopped:
        raise RunInterrupted(f"interrupted ({stopped}); call it again with resume=True to go on") from None


def _let_go(error: BaseException | None) -> None:
    """Frames of a failed call hold its models for as long as someone keeps the error, as notebooks do."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
