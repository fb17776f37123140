"""Whole trainings against a Hub that fails: they end as without one, and what was pushed is enough to go on from."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from command_line import Medtune, Result, command_runner
from forked import fork
from hub_uploads import UploadServer, ask_this_hub
from medtune.__main__ import main
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints import pushing
from medtune.training.checkpoints.sealing import SEAL_NAME, seal_checkpoint
from stopping import finish, steps_logged, wait_for, write_recipe

pytestmark = pytest.mark.slow

TOKEN, REPO = "hf_secretofmine", "owner/run"
SHORT = ("--set", "training.max_steps=20", "--set", "training.checkpoint_steps=3")
PUSHING = ("--set", f"training.push_checkpoints_to={REPO}")
# The command, at the end of its patience sooner.
IMPATIENT = """
import sys
from pathlib import Path
from types import SimpleNamespace
import pytest

sys.path.append({tests!r})
from hub_uploads import ask_this_hub
import medtune.training.checkpoints.pushing as pusher
from medtune.__main__ import main

ask_this_hub(pytest.MonkeyPatch(), SimpleNamespace(url={url!r}), Path({home!r}), {token!r})
pusher.CLOSING_SECONDS = 2.0
main()
"""


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory) -> Path:
    return write_recipe(tiny, tmp_path_factory.mktemp("job"))


@pytest.fixture
def hub():
    with UploadServer(frozenset({TOKEN})) as server:
        yield server


@pytest.fixture
def medtune(monkeypatch, capsys, hub, tmp_path) -> Medtune:
    ask_this_hub(monkeypatch, hub, tmp_path / "home", TOKEN)
    monkeypatch.setattr(pushing, "FIRST_DELAY", 0.05)
    return command_runner(monkeypatch, capsys)


def prepare(medtune: Medtune, recipe: Path, run: Path, *more: str) -> Result:
    """Only what a training needs."""
    return medtune("data", "prepare", recipe, "--run-dir", run, *SHORT, *PUSHING, *more)


def train(medtune: Medtune, recipe: Path, run: Path, *resume: str) -> Result:
    """A short training and what it needs."""
    prepared = prepare(medtune, recipe, run, *resume)
    return prepared if prepared.status else medtune("train", run, *resume)


def trained(run: Path) -> dict[str, object]:
    """What must depend neither on a Hub nor on where the training went on."""
    lines = (run / "training" / "history.jsonl").read_text().splitlines()
    history = [{key: value for key, value in json.loads(line).items() if key != "tokens_per_second"} for line in lines]
    return {"history": history, "adapter": (run / "adapter" / "adapter_model.safetensors").read_bytes()}


def train_in_one_go(patch: pytest.MonkeyPatch, recipe: Path, run: Path, *more: str) -> None:
    for command in (["data", "prepare", str(recipe), "--run-dir", str(run), *SHORT, *more], ["train", str(run)]):
        patch.setattr(sys, "argv", ["medtune", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code


@pytest.fixture(scope="module")
def without_a_hub(recipe: Path) -> dict[str, object]:
    run = recipe.parent / "without"
    with pytest.MonkeyPatch.context() as patch:
        train_in_one_go(patch, recipe, run)
    return trained(run)


@pytest.fixture(scope="module")
def pushed(recipe: Path, without_a_hub, tmp_path_factory) -> list[dict[str, bytes]]:
    """The heads of a repository while a machine trained, each as a reader found it at the time."""
    run = recipe.parent / "lost"
    with UploadServer(frozenset({TOKEN})) as server, pytest.MonkeyPatch.context() as patch:
        ask_this_hub(patch, server, tmp_path_factory.mktemp("home"), TOKEN)
        train_in_one_go(patch, recipe, run, *PUSHING)
        assert server.steps(REPO)[-1] == 20
    assert trained(run) == without_a_hub
    return server.heads


def test_a_fresh_machine_ends_as_the_one_that_was_lost(medtune, hub, recipe, pushed, without_a_hub, tmp_path) -> None:
    hub.add("models", REPO, pushed[1], private=True)
    step = hub.steps(REPO)[-1]
    assert 3 < step < 20
    result = train(medtune, recipe, tmp_path / "fresh", "--resume")
    assert result.status == 0, result.err
    assert f"continuing from {REPO}, step {step}\n" in result.err
    assert "training step, as it began: " in result.err
    assert trained(tmp_path / "fresh") == without_a_hub
    assert hub.steps(REPO)[-1] == 20
    assert TOKEN not in result.err + result.out


def test_a_training_goes_on_when_the_hub_does_not(medtune, hub, recipe, without_a_hub, tmp_path) -> None:
    hub.fail("/commit/", 429, times=1, retry_after=1)
    hub.fail("/commit/", 500, times=2)
    hub.fail("/commit/", "hang up", times=1)
    hub.fail("/commit/", "lose the answer", times=1)
    result = train(medtune, recipe, tmp_path / "run")
    assert result.status == 0, result.err
    assert trained(tmp_path / "run") == without_a_hub
    assert hub.steps(REPO)[-1] == 20
    assert sum("429 Too Many Requests" in line for line in result.err.splitlines()) == 1
    assert sum("500 Internal Server Error" in line for line in result.err.splitlines()) == 1
    assert not list((tmp_path / "run" / "checkpoints").glob(".pushing-*"))


def test_a_public_repository_is_refused_before_any_work(medtune, hub, recipe, tmp_path) -> None:
    hub.add("models", REPO, {".gitattributes": b""})
    result = medtune("run", recipe, "--run-dir", tmp_path / "run", *PUSHING)
    assert result.status == 2
    assert result.err.startswith(f"medtune: repository {REPO}: public, and adapters may have learnt rows by heart; ")
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


class _Malice:
    marker = ""

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_planted_pickle_runs_nowhere(medtune, hub, recipe, pushed, tmp_path) -> None:
    hub.add("models", REPO, pushed[0], private=True)
    _Malice.marker = str(tmp_path / "ran")
    planted = RunDir(tmp_path / "planted")
    for name, data in hub.head(REPO).items():
        file = planted.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    folder = planted.checkpoints_dir / f"checkpoint-{hub.steps(REPO)[-1]}"
    origin = json.loads((folder / SEAL_NAME).read_text())["origin"]
    torch.save({"state": _Malice()}, folder / "optimizer.pt")
    seal_checkpoint(planted, folder, origin)
    files = [file for file in planted.path.rglob("*") if file.is_file()]
    hub.repos["models", REPO].commit({file.relative_to(planted.path).as_posix(): file.read_bytes() for file in files})
    result = train(medtune, recipe, tmp_path / "fresh", "--resume")
    assert result.status == 2
    said = [line for line in result.err.splitlines() if line.startswith("medtune: ")]
    assert len(said) == 1
    assert f"repository {REPO}: {folder.name}/optimizer.pt holds more than tensors (posix.system)" in said[0]
    assert "Traceback" not in result.err
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_hangs_does_not_keep_a_stopped_run(medtune, hub, recipe, tmp_path) -> None:
    run = tmp_path / "run"
    assert medtune("data", "prepare", recipe, "--run-dir", run, *PUSHING).status == 0
    hub.fail("/lfs/", "hang")
    script, tests = tmp_path / "impatient.py", str(Path(__file__).parents[1])
    script.write_text(IMPATIENT.format(tests=tests, url=hub.url, home=str(tmp_path / "home"), token=TOKEN))
    process = fork(script, "train", run)
    wait_for(process, lambda: steps_logged(run) >= 10)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    status, errors = finish(process, 30)
    assert 2 <= time.monotonic() - began < 15
    assert status == 75, errors
    said = errors.splitlines()
    assert said[-2].startswith(f"repository {REPO}: the checkpoint of step {steps_logged(run)} has not arrived; ")
    assert said[-1] == f"medtune: interrupted (SIGTERM); go on with `medtune train {run} --resume`"
    assert "Traceback" not in errors
    assert TOKEN not in errors
