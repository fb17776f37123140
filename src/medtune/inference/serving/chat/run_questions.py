"""The test questions of a run to pick from, with their references, and the training answers nearest to a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from medtune.errors import MedtuneError
from medtune.evaluation.nearest_questions import NearestQuestions
from medtune.records import QAPair
from medtune.run_dir.directory import RunDir

NEAREST = 3


@dataclass(frozen=True)
class RunQuestions:
    """Test rows, and the index of the training rows. Without data, `missing` is the sentence that says why."""

    rows: Sequence[QAPair] = ()
    nearest: NearestQuestions = field(default_factory=lambda: NearestQuestions(()))
    missing: str = ""

    @classmethod
    def of(cls, target: str) -> RunQuestions:
        """Those of a run; of an adapter, a merged model or a run without its rows none, and why."""
        path = Path(target)
        if not (path / "config.yaml").is_file():
            return cls(missing="An adapter or a merged model comes without rows: chat with its run to see them.")
        try:
            run = RunDir.open(path)
            rows, train = run.read_split("test"), run.read_split("train")
        except MedtuneError as error:
            return cls(missing=f"The run's rows cannot be read: {error}")
        return cls(tuple(rows), NearestQuestions(tuple(train)))

    def search(self, text: str, most: int) -> list[int]:
        """Places of the first test rows whose question, or what it is about, has every word of `text`."""
        words = text.casefold().split()
        found = (
            place
            for place, row in enumerate(self.rows)
            if all(word in f"{row.question} {row.qtype} {row.focus}".casefold() for word in words)
        )
        return list(islice(found, most))

    def find(self, question: str) -> QAPair | None:
        """The test row that asks just this, but for case and white space, and has no turns before it."""
        wanted = plain(question)
        return next((row for row in self.rows if not row.turns and plain(row.asked) == wanted), None)

    def nearest_to(self, row: QAPair) -> list[QAPair]:
        """The training rows nearest to a test row, of its type, or to a question that somebody has typed."""
        if not self.nearest.train:
            return []
        try:
            return list(islice(self.nearest.ranked(row), NEAREST))
        except MedtuneError:  # not one word in all training questions: none is near
            return []


def typed(question: str) -> QAPair:
    """What somebody has typed, as a row without a reference."""
    return QAPair("", "", question.strip(), "")


def plain(question: str) -> str:
    """`question` without what two people write differently: case and white space."""
    return " ".join(question.casefold().split())
