"""Trackers that follow a run, which never waits long for one and never fails because of one."""

from __future__ import annotations

import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import Any, TypeVar

from medtune.config.training import TrackerName
from medtune.errors import first_line
from medtune.run_dir.directory import RunDir
from medtune.runtime import interruption
from medtune.runtime.launch import is_main
from medtune.runtime.progress import say
from medtune.storage.disk_errors import describe_disk_error
from medtune.training.trackers.services import SERVICES
from medtune.training.trackers.tracker import Ending, Results, TrackedRun

T = TypeVar("T")
# After so many failures in a row a tracker is left alone: each may have taken its library's whole patience.
MOST_IN_A_ROW = 3
# MLflow sends curves from a thread, which tells nobody but this logger.
_MLFLOW_THREAD = "mlflow.utils.async_logging.async_logging_queue"
_SECRET_NAME = re.compile(r"(?i)(?:token|key|secret|password|passwd)$")
_SHORTEST_SECRET = 8


class CallGuard:
    """Calls of one service. What fails is told once and counted, and the run goes on."""

    def __init__(self, name: TrackerName) -> None:
        self.name = name
        self.failures = self.in_a_row = 0

    def attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """`call()`, or None where it fails or failed too often. Raises what a disk of the run directory causes."""
        if self.in_a_row >= MOST_IN_A_ROW:
            self.failures += 1
            return None
        try:
            with redirect_stdout(sys.stderr):  # standard output is for what a command prints
                result = call()
        except Exception as error:
            # Those files are in the run directory, where nothing else could be written either.
            if self.name == "tensorboard" and describe_disk_error(error) is not None:
                raise
            self.in_a_row += 1
            self.fail(what, first_line(error))
            return None
        self.in_a_row = 0
        return result

    def fail(self, what: str, reason: str) -> None:
        """Count a failure; the first is told."""
        self.failures += 1
        if self.failures == 1:
            shown = textwrap.shorten(without_secrets(reason), 200, placeholder=" …")
            say(f"{self.name}: {what} failed ({shown}); the run goes on, further failures are counted")

    def filter(self, record: logging.LogRecord) -> bool:
        """Count what MLflow's thread logs as an error, in place of its own line for each."""
        if record.levelno >= logging.ERROR:
            self.fail("logging", record.getMessage())
        return record.levelno < logging.ERROR


class Followed:
    """One tracker that is open, or that could not be opened."""

    def __init__(self, name: TrackerName, run: RunDir, step: int) -> None:
        self.name, self.guard, self.service = name, CallGuard(name), SERVICES[name]()
        self.ending: Ending = "failed"
        if name == "mlflow":
            logging.getLogger(_MLFLOW_THREAD).addFilter(self.guard)
        self.is_open = self.guard.attempt("opening", partial(self._open, run, step)) is not None

    def _open(self, run: RunDir, step: int) -> str:
        kept = run.read_as(dict[str, str], run.trackers_file) if run.trackers_file.is_file() else {}
        found = self.service.open(TrackedRun(run, kept.get(self.name), step))
        if found and kept.get(self.name) != found:
            run.write_json(run.trackers_file, {**kept, self.name: found})
        return found

    def close(self) -> None:
        """End the run there, and tell how often it failed."""
        if self.is_open:
            ending: Ending = "stopped" if interruption.requested() else self.ending
            self.guard.in_a_row = 0  # whatever failed before, a run that is open there is ended there
            self.guard.attempt("closing", partial(self.service.close, ending))
        logging.getLogger(_MLFLOW_THREAD).removeFilter(self.guard)
        if self.guard.failures > 1:
            say(f"{self.name}: {self.guard.failures} calls failed or were left out")


def follow(run: RunDir, names: Sequence[TrackerName], step: int = 0) -> list[Followed]:
    """The trackers of a run, opened or continued, in its first process; `step` is the one that training starts from."""
    return [Followed(name, run, step) for name in names] if is_main() else []


def trainer_arguments(trackers: Sequence[Followed]) -> dict[str, Any]:
    """The trainer's arguments that the trackers' callbacks read."""
    return {key: value for one in trackers if one.is_open for key, value in one.service.arguments().items()}


def send_results(run: RunDir, names: Sequence[TrackerName], results: Results) -> dict[str, int]:
    """Send what a run ends with to its trackers. Returns how many calls failed, by tracker."""
    failures: dict[str, int] = {}
    for followed in follow(run, names, results.step):
        if followed.is_open:
            followed.guard.attempt("sending the results", partial(followed.service.log_results, results))
        followed.ending = "finished"
        followed.close()
        failures[followed.name] = followed.guard.failures
        if not followed.guard.failures:
            sent = [*results.files, *(["adapter"] if results.adapter else [])]
            say(f"{followed.name}: has the scores, {', '.join(sent)}")
    return failures


def without_secrets(text: str) -> str:
    """What a library says, without the login in an address and without values of variables that are secret."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return re.sub(r"(?<=://)[^\s/]*@", "***@", text)
