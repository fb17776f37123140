"""A training that is stopped and resumed, and its results, read back from each service's own files."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from packaging.requirements import Requirement
from trainings import make_config, train

from medtune.config.training import TrackerName
from medtune.run_dir.directory import RunDir
from medtune.training.trackers.following import send_results
from medtune.training.trackers.services import REQUIRED
from medtune.training.trackers.tracker import Results
from tiny_model import Tiny

INSTALLED: list[TrackerName] = [name for name in get_args(TrackerName) if find_spec(name) is not None]
FILES = ("comparison.json", "report.html")


def needs(name: TrackerName) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in INSTALLED, reason=f"needs medtune[{name}]")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the services keep what they get: all on this machine."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlflow")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        yield folder


@pytest.fixture(scope="module")
def run(tiny: Tiny, store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """One step, one more after a resume, and the results."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    settings = {"report_to": INSTALLED, "checkpoint_steps": 1, "keep": "last"}
    train(tiny, folder, make_config(tiny, max_steps=1, **settings))
    train(tiny, folder, make_config(tiny, max_steps=2, **settings), resume_from=folder / "checkpoints" / "checkpoint-1")
    files = {name: folder / name for name in FILES}
    for file in files.values():
        file.write_text("[]")
    made = RunDir(folder)
    made.adapter_dir.mkdir()
    made.adapter_weights_file.write_bytes(b"weights")
    results = Results(2, {"test/rougeL/tuned": 0.25}, "| a | comparison |", files, made.adapter_dir)
    before = dict(os.environ)
    assert send_results(made, INSTALLED, results) == dict.fromkeys(INSTALLED, 0)
    assert {name for name in os.environ if name.startswith("MLFLOW")} <= before.keys()
    return made


def kept_id(run: RunDir, name: str) -> str:
    return str(run.read_as(dict[str, str], run.trackers_file)[name])


def losses(run: RunDir) -> list[float]:
    return [entry["loss"] for entry in run.read_history() if "loss" in entry]


def test_tensorboard(run: RunDir) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.tracker_dir)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(losses(run))
    assert [event.value for event in events.Scalars("test/rougeL/tuned")] == [0.25]
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert texts["comparison/text_summary"] == "| a | comparison |"
    # TensorBoard keeps no files: it gets their places and checksums.
    for name in (*FILES, "adapter_model.safetensors"):
        assert f"{name}`, SHA-256 `" in texts[f"files/{name}/text_summary"]


@needs("mlflow")
def test_mlflow(run: RunDir, store: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("medtune").experiment_id])
    assert (found.info.run_id, found.info.status) == (kept_id(run, "mlflow"), "FINISHED")
    assert found.info.run_name == "a run"
    history = client.get_metric_history(found.info.run_id, "loss")
    assert [entry.step for entry in history] == [1, 2]
    assert [entry.value for entry in history] == pytest.approx(losses(run))
    assert found.data.metrics["test/rougeL/tuned"] == 0.25
    assert found.data.params["max_steps"] == "1"  # of the first training: parameters never change
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {*FILES, "adapter"}
    (weights,) = client.list_artifacts(found.info.run_id, "adapter")
    assert weights.path == "adapter/adapter_model.safetensors"
    assert mlflow.active_run() is None


@needs("wandb")
def test_wandb(run: RunDir) -> None:
    """Its offline files, in a form of its own, which hold texts as they are."""
    import wandb

    assert wandb.run is None
    first, second, last = sorted((run.path / "training" / "wandb").glob("offline-run-*/*.wandb"))
    # The same run, in three processes' files.
    assert {file.name for file in (first, second, last)} == {f"run-{kept_id(run, 'wandb')}.wandb"}
    assert b"train/loss" in first.read_bytes()
    assert b"train/loss" in second.read_bytes()
    content = last.read_bytes()
    for text in (*FILES, "adapter_model.safetensors", "test/rougeL/tuned"):
        assert text.encode() in content


@needs("wandb")
def test_wandb_asks_nobody_for_a_key(tmp_path: Path) -> None:
    """In a terminal it would wait for an answer, hours after anybody looked."""
    code = "from medtune.training.trackers.services import Wandb; Wandb().open(None)"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**kept, "HOME": str(tmp_path)}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    told = b""
    with suppress(OSError):  # the end of a terminal
        while more := os.read(ours, 4096):
            told += more
    os.close(ours)
    assert process.wait(timeout=60) == 1
    assert b"no API key: `wandb login`" in told
    assert b"Create a W&B account" not in told


@needs("trackio")
def test_trackio(run: RunDir, store: Path) -> None:
    def rows(query: str) -> list[tuple[Any, ...]]:
        return database.execute(query).fetchall()

    database = sqlite3.connect(store / "trackio" / "medtune.db")
    logged = [
        (name, json.loads(metrics)) for name, metrics in rows("select run_name, metrics from metrics order by id")
    ]
    assert {name for name, _ in logged} == {kept_id(run, "trackio")}
    assert [entry["train/loss"] for _, entry in logged if "train/loss" in entry] == pytest.approx(losses(run))
    assert logged[-1][1] == {"test/rougeL/tuned": 0.25}
    manifests = "".join(str(manifest) for (manifest,) in rows("select manifest from artifact_versions"))
    for name in (*FILES, "adapter_model.safetensors"):
        assert name in manifests
    assert not (store / "trackio" / "media").exists()
    database.close()


@pytest.mark.parametrize("name", get_args(TrackerName))
def test_what_is_required_is_what_the_extra_asks_for(name: TrackerName) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = Requirement(project["optional-dependencies"][name][0])
    package, least = REQUIRED[name]
    assert asked.name == package
    assert least in {bound.version for bound in asked.specifier if bound.operator == ">="}
