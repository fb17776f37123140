"""What a tracker is asked to do, and what it is told of a run."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medtune.run_dir.directory import RunDir

# How a training, or the sending of results, ended.
Ending = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run as its trackers know it: `known` is its id there if it was opened before, `step` where training starts."""

    run: RunDir
    known: str | None = None
    step: int = 0

    @property
    def name(self) -> str:
        """For people, and not unique."""
        return self.run.path.absolute().name

    @property
    def id(self) -> str:
        """The id there: the known one, or one that no other run has."""
        return self.known or f"{re.sub(r'[^A-Za-z0-9._-]+', '-', self.name)[:60]}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Results:
    """What a run ends with: scores by name, the comparison as Markdown, files by name, and the adapter's folder."""

    step: int
    scores: Mapping[str, float]
    comparison: str
    files: Mapping[str, Path]
    adapter: Path | None


class Tracker(ABC):
    """One service. Any method may raise whatever its library raises."""

    @abstractmethod
    def open(self, tracked: TrackedRun) -> str:
        """Open the run there, or continue it. Returns its id, empty where there is none."""

    @abstractmethod
    def callback(self) -> Any:
        """Transformers' callback that sends the curves of a training to the run that is open."""

    def arguments(self) -> dict[str, Any]:
        """What that callback reads from the trainer's arguments."""
        return {}

    @abstractmethod
    def log_results(self, results: Results) -> None:
        """Send what a run ends with."""

    @abstractmethod
    def close(self, ending: Ending) -> None:
        """Send what is left, and end."""
