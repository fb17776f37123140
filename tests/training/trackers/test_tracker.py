"""What a tracker is told of a run: a name for people, and an id that is its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from medtune.run_dir.directory import RunDir
from medtune.training.trackers.tracker import Ending, Results, TrackedRun, Tracker


def test_a_run_that_is_known_keeps_its_id() -> None:
    assert TrackedRun(RunDir(Path("runs/demo")), "an-id", 4).id == "an-id"


@pytest.mark.parametrize(
    ("path", "name", "start"),
    [
        ("runs/demo", "demo", "demo"),
        ("runs/my run: 1", "my run: 1", "my-run-1"),
        ("runs/Gicht und Ärzte", "Gicht und Ärzte", "Gicht-und-rzte"),
        ("runs/" + "x" * 90, "x" * 90, "x" * 60),
    ],
)
def test_a_new_id_has_the_name_in_letters_that_every_service_takes(path: str, name: str, start: str) -> None:
    tracked = TrackedRun(RunDir(Path(path)))
    assert tracked.name == name
    assert re.fullmatch(rf"{start}-[0-9a-f]{{8}}", tracked.id)
    assert tracked.id != tracked.id, "two runs of one name would be one there"


def test_the_name_is_that_of_the_folder_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path / "demo")
    assert TrackedRun(RunDir(Path())).name == "demo"


def test_a_service_needs_no_arguments_of_the_trainer_and_has_to_do_all_the_rest() -> None:
    class Service(Tracker):
        def open(self, tracked: TrackedRun) -> str:
            return ""

        def callback(self) -> Any:
            return None

        def log_results(self, results: Results) -> None: ...

        def close(self, ending: Ending) -> None: ...

    assert Service().arguments() == {}
    assert Tracker.__abstractmethods__ == {"open", "callback", "log_results", "close"}
