from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from medtune.api.working import as_call
from medtune.errors import spell_out
from medtune.run_dir.completing import how_to_complete
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES, StageName


@pytest.fixture
def run(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """The run of these tests, by a name to write out."""
    monkeypatch.chdir(run.path.parent)
    return RunDir(Path(run.path.name))


def complete(run: RunDir, names: Iterable[StageName], monkeypatch: pytest.MonkeyPatch) -> None:
    done = set(names)
    monkeypatch.setattr(RunDir, "is_complete", lambda run, stage: stage in done)


def rest(run: RunDir) -> str:
    return f"`medtune run {run.path}/config.yaml --run-dir {run.path} --resume`"


@pytest.mark.parametrize("stage", ["train", "tuned", "compare", "report"])
def test_a_command_that_would_be_refused_for_an_earlier_stage_is_not_named(run: RunDir, stage: StageName) -> None:
    assert spell_out(how_to_complete(run, stage)) == f"run {rest(run)}, which does all that is left"


def test_beside_the_stage_that_can_be_run_is_the_command_for_all(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(run, ["data", "baseline", "controls"], monkeypatch)
    expected = f"run `medtune train {run.path}` first, or all that is left with {rest(run)}"
    assert spell_out(how_to_complete(run, "train")) == expected


def test_the_last_stage_that_is_missing_is_run_by_itself(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(run, set(STAGE_NAMES) - {"compare", "report"}, monkeypatch)
    assert spell_out(how_to_complete(run, "compare")) == f"run `medtune compare {run.path}` first"


def test_python_is_told_the_call(run: RunDir) -> None:
    call = f"`medtune.run('{run.path}/config.yaml', run_dir='{run.path}', resume=True)`"
    assert spell_out(how_to_complete(run, "compare"), as_call) == f"run {call}, which does all that is left"
