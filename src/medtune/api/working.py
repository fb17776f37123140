"""Calls in a process that outlives them, such as a notebook's or a server's, and errors in words of Python."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

from medtune.errors import Command, DiskError, MedtuneError, Option, RunDirError, show_value
from medtune.pipeline.edge import process_edge
from medtune.runtime import interruption
from medtune.runtime.distributed import joined
from medtune.runtime.launch import require_single_process
from medtune.runtime.process import prepare_process
from medtune.runtime.progress import Listener, listening

# Signals, settings and the memory that a plan counts on are the process's: one call works at a time.
_at_work = threading.Lock()
# Options whose argument has another name, or is a list.
_LISTS = {"set": "overrides", "metric": "metrics", "primary": "primary"}
_SWITCHES = {
    **{name: f"{name}=True" for name in ("adapter_only", "base", "measure", "on_cpu", "private", "resume")},
    **{name.replace("-", "_"): f"options=['{name}']" for name in ("overwrite", "without-evaluation")},
}
_FUNCTIONS = {"data prepare": "prepare", **{name: name for name in ("compare", "evaluate", "plan", "run", "train")}}


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
        together = joined() if processes == "all" else nullcontext()
        with spelled_as_calls(), _errors_of_a_call(), process_edge(), together, listening(progress):
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


def as_call(part: object) -> str:
    """A part of an error's text; commands without a function stay what they are."""
    if isinstance(part, Option):
        name = _LISTS.get(part.name, part.name)
        if part.value is None or part.name in _SWITCHES:
            return _SWITCHES.get(part.name, name)
        return _argument(part) if part.name in ("set", "gpus") else f"{name} {part.value}"
    if isinstance(part, Command) and part.name in _FUNCTIONS:
        target = [show_value(str(part.target))] if part.target else []
        return f"`medtune.{_FUNCTIONS[part.name]}({', '.join([*target, *map(_argument, part.options)])})`"
    if isinstance(part, Command) and part.name == "merge":
        return f"`medtune.load_run({show_value(str(part.target))}).merge({', '.join(map(_argument, part.options))})`"
    return str(part)


@contextmanager
def spelled_as_calls() -> Iterator[None]:
    """Errors that leave the block, or the function that this decorates, are for those who call medtune from Python."""
    try:
        yield
    except MedtuneError as error:
        error.spelling = as_call
        raise


def _argument(option: Option) -> str:
    """As it is written in a call."""
    if option.name in _SWITCHES or option.value is None:
        return _SWITCHES.get(option.name, option.name)
    if option.name in _LISTS:
        return f"{_LISTS[option.name]}=[{show_value(str(option.value))}]"
    return f"{option.name}={show_value(option.value if isinstance(option.value, int) else str(option.value))}"
