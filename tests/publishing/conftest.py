"""A finished run of the tiny model, made once, and copies of it that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from command_line import Medtune, command_runner
from hub_uploads import UploadServer, ask_this_hub
from medtune.config.recipes import load_recipe
from medtune.model.merging.planning import plan_merge
from medtune.pipeline import run as pipeline
from medtune.pipeline.merge import merge_stage
from medtune.run_dir.directory import RunDir
from medtune.run_dir.lock import release_locks
from stopping import write_recipe
from tiny_model import Tiny


@pytest.fixture(scope="session")
def finished_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Never changed by a test."""
    folder = tmp_path_factory.mktemp("publishing")
    return pipeline.run(load_recipe(str(write_recipe(tiny, folder, steps=3)), []), folder / "run")


@pytest.fixture
def copied_run(finished_run: RunDir, tmp_path: Path) -> RunDir:
    """A copy to be changed."""
    return RunDir(Path(shutil.copytree(finished_run.path, tmp_path / "run")))


@pytest.fixture
def reconfigured(copied_run: RunDir) -> Callable[..., RunDir]:
    """The copied run as if it had been made with other values of some keys."""

    def change(**sections: dict[str, object]) -> RunDir:
        from medtune.config.recipes.yaml_text import dump_config

        run = RunDir(copied_run.path)
        updates = {name: getattr(run.config, name).model_copy(update=values) for name, values in sections.items()}
        run.write_text(run.config_file, dump_config(run.config.model_copy(update=updates)))
        run.record_start()
        return RunDir(run.path)

    return change


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadServer]:
    """An empty Hub that this user may write to."""
    token = "hf_secretofmine"
    with UploadServer(frozenset({token})) as server:
        ask_this_hub(monkeypatch, server, tmp_path / "home", token)
        yield server


@pytest.fixture
def medtune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hub: UploadServer) -> Medtune:
    return command_runner(monkeypatch, capsys)


@pytest.fixture
def merged(copied_run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merged model in several shards."""
    monkeypatch.setattr("medtune.pipeline.merge.plan_merge", partial(plan_merge, shard_bytes=150_000))
    merge_stage(copied_run, tmp_path / "merged", dtype="float32", measure=False)
    release_locks()
    return tmp_path / "merged"
