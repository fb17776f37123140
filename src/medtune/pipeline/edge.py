"""The edge of the process: what a command or a call changes in it, and gives back when it ends."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from medtune.errors import MedtuneError
from medtune.run_dir.lock import locked_folders, release_locks
from medtune.runtime import interruption
from medtune.runtime.hardware import release_memory
from medtune.runtime.process import keep_freed_memory, settings_given_back
from medtune.runtime.progress import lines_on_terminal
from medtune.storage.disk_errors import describe_disk_error, quiet_threads


@contextmanager
def process_edge(*, own_process: bool = False) -> Iterator[None]:
    """Signals interrupt this block; locks, settings, log lines and the memory of models end with it.

    In medtune's `own_process` a second signal kills, and freed memory is kept for the next step, which glibc cannot be
    told to end. Raises Interrupted where a signal came, and DiskError for an error of any library that a disk caused.
    """
    if own_process:
        keep_freed_memory()
    try:
        with (
            interruption.handled(second_kills=own_process),
            settings_given_back(),
            lines_on_terminal(),
            quiet_threads(),
        ):
            try:
                yield
            except Exception as error:
                interruption.raise_if_requested()  # a library may make an error of it
                problem = None if isinstance(error, MedtuneError) else describe_disk_error(error, _place(own_process))
                if problem is None:
                    raise
                raise problem from error
            interruption.raise_if_requested()
    except BaseException as error:
        if not own_process:
            _let_go(error)
        raise
    finally:
        release_locks()
        if not own_process:
            release_memory()


def _place(own_process: bool) -> str:
    """Where a file may be that Python does not name."""
    place = str(next(iter(locked_folders()), "the disk"))
    return f"{place}, or where output goes" if own_process and not sys.stdout.isatty() else place


def _let_go(error: BaseException | None) -> None:
    """Frames of a failed call hold its models for as long as someone keeps the error, as notebooks do."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
