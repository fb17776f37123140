"""Checkpoints that come back from a loopback Hub: only whole, of this training, newer than what is here."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session

from hub_uploads import UploadServer, ask_this_hub
from medtune.config.recipes import load_recipe
from medtune.config.recipes.yaml_text import dump_config
from medtune.errors import HubError, HubUnavailableError
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints import remote
from medtune.training.checkpoints.pushing import CheckpointPusher
from medtune.training.checkpoints.remote import check_repository, newest_checkpoint
from medtune.training.checkpoints.sealing import damage_of, seal_checkpoint

TOKEN, REPO = "hf_secretofmine", "owner/run"
ORIGIN = {"base": "a", "configuration": "b", "rows": "c"}
CONFIG = load_recipe("demo", [f"training.push_checkpoints_to={REPO}"])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(remote, "TRIES", (0.01, 0.01))
    with UploadServer(frozenset({TOKEN})) as server:
        ask_this_hub(monkeypatch, server, tmp_path / "home", TOKEN)
        yield server


@pytest.fixture
def fresh(tmp_path: Path) -> RunDir:
    """The run on a machine where nothing stands."""
    return RunDir(tmp_path / "fresh")


def save(run: RunDir, step: int, best: int | None = None, **files: bytes) -> Path:
    folder = run.checkpoints_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    torch.save({"state": {0: {"exp_avg": torch.ones(3)}}}, folder / "optimizer.pt")
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    seal_checkpoint(run, folder, ORIGIN)
    return folder


def push(path: Path, step: int, *, config=CONFIG, best: int | None = None, **files: bytes) -> RunDir:
    """Have another machine push its checkpoint."""
    run = RunDir(path)
    run.write_text(run.config_file, dump_config(config))
    run.write_text(run.history_file, '{"step": 1}\n')
    run.write_text(run.checkpoints_dir / "plan.json", "{}\n")
    if best is not None:
        save(run, best)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save(run, step, best, **files))
    pusher.close()
    return run


def change(hub: UploadServer, **files: bytes | None) -> None:
    """Somebody else changes files at the repository's head; names are endings."""
    head = hub.head(REPO)
    for ending, content in files.items():
        for name in [name for name in head if name.replace(".", "_").replace("/", "_").endswith(ending)]:
            head.pop(name) if content is None else head.update({name: content})


def test_a_fresh_machine_goes_on_from_the_repository(hub, fresh, tmp_path, capfd) -> None:
    away = push(tmp_path / "away", 4, best=2)
    found = newest_checkpoint(fresh, CONFIG, ORIGIN, None)
    assert found == fresh.checkpoints_dir / "checkpoint-4"
    assert f"continuing from {REPO}, step 4\n" in capfd.readouterr().err
    for name in ("checkpoint-2", "checkpoint-4"):
        assert damage_of(fresh.checkpoints_dir / name) is None
        optimizer = (fresh.checkpoints_dir / name / "optimizer.pt").read_bytes()
        assert optimizer == (away.checkpoints_dir / name / "optimizer.pt").read_bytes()
    assert fresh.history_file.read_text() == '{"step": 1}\n'
    assert (fresh.checkpoints_dir / "plan.json").read_text() == "{}\n"
    assert {path.name for path in fresh.checkpoints_dir.iterdir()} == {
        "checkpoint-2", "checkpoint-4", "plan.json", ".fetching"
    }  # fmt: skip


@pytest.mark.parametrize(("here", "expected"), [(2, 4), (4, 4), (6, 6)])
def test_the_newer_one_is_taken(hub, fresh, tmp_path, here: int, expected: int) -> None:
    push(tmp_path / "away", 4)
    local = save(fresh, here)
    asked = len(hub.files_asked_for("models", REPO))
    assert newest_checkpoint(fresh, CONFIG, ORIGIN, local) == fresh.checkpoints_dir / f"checkpoint-{expected}"
    assert (len(hub.files_asked_for("models", REPO)) > asked) == (here < 4)


def test_an_empty_repository_changes_nothing(hub, fresh) -> None:
    assert newest_checkpoint(fresh, CONFIG, ORIGIN, None) is None
    assert hub.repos["models", REPO].private


def test_no_pickle_and_no_code_is_fetched(hub, fresh, tmp_path) -> None:
    push(tmp_path / "away", 4)
    planted = dict.fromkeys(("adapter_model.bin", "training_args.bin", "tokenizer.py", "x.pkl"), b"never")
    hub.head(REPO).update({f"checkpoints/checkpoint-4/{name}": data for name, data in planted.items()})
    newest_checkpoint(fresh, CONFIG, ORIGIN, None)
    assert {Path(name).suffix for name in hub.files_asked_for("models", REPO)} <= {
        ".json", ".jsonl", ".yaml", ".pt", ".safetensors"
    }  # fmt: skip


class _Malice:
    def __reduce__(self):
        return os.system, (f"touch {_Malice.marker}",)

    marker = ""


def _saved_by_torch(file: Path) -> None:
    torch.save({"state": _Malice()}, file)


def _pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps(_Malice()))


def _saved_by_an_old_torch(file: Path) -> None:
    torch.save({"state": _Malice()}, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_by_a_newer_protocol_is_no_way_around(hub, fresh, tmp_path, protocol) -> None:
    _Malice.marker = str(tmp_path / "ran")
    torch.save({"state": _Malice()}, tmp_path / "file", pickle_protocol=protocol)
    push(tmp_path / "away", 4, rng_state__pth=(tmp_path / "file").read_bytes())
    with pytest.raises(HubError, match=r"checkpoint-4/rng_state.pth holds more than tensors"):
        newest_checkpoint(fresh, CONFIG, ORIGIN, None)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("write", "name"),
    [(_saved_by_torch, "optimizer.pt"), (_pickled, "scheduler.pt"), (_saved_by_an_old_torch, "rng_state.pth")],
)
def test_a_planted_pickle_is_refused_and_never_runs(hub, fresh, tmp_path, write, name: str) -> None:
    _Malice.marker = str(tmp_path / "ran")
    write(tmp_path / "file")
    push(tmp_path / "away", 4, **{name.replace(".", "__"): (tmp_path / "file").read_bytes()})
    with pytest.raises(HubError) as caught:
        newest_checkpoint(fresh, CONFIG, ORIGIN, None)
    assert str(caught.value).startswith(f"repository {REPO}: checkpoint-4/{name} holds more than tensors (")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert not list(fresh.checkpoints_dir.glob("checkpoint-*"))


def test_the_random_state_of_numpy_is_no_malice(hub, fresh, tmp_path) -> None:
    import random

    import numpy

    torch.save(
        {"python": random.getstate(), "numpy": numpy.random.get_state(), "cpu": torch.get_rng_state()}, tmp_path / "x"
    )
    push(tmp_path / "away", 4, rng_state__pth=(tmp_path / "x").read_bytes())
    assert newest_checkpoint(fresh, CONFIG, ORIGIN, None) is not None


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (
            {"model_safetensors": b"WEIGHTS"},
            "checkpoint-4 is torn (adapter_model.safetensors is not as it was written)",
        ),
        ({"model_safetensors": None}, "checkpoint-4 is torn (adapter_model.safetensors is missing)"),
        ({"sealed_json": b"{}"}, "checkpoint-4 is torn (sealed.json is damaged)"),
        ({"plan_json": None}, "checkpoints/plan.json is missing"),
        ({"config_yaml": b"- 1"}, "its config.yaml is missing or damaged"),
        ({"config_yaml": None}, "its config.yaml is missing or damaged"),
    ],
)
def test_what_is_not_whole_is_refused(hub, fresh, tmp_path, files, problem: str) -> None:
    push(tmp_path / "away", 4)
    change(hub, **files)
    with pytest.raises(HubError) as caught:
        newest_checkpoint(fresh, CONFIG, ORIGIN, None)
    assert str(caught.value).startswith(f"repository {REPO}: {problem}; delete checkpoints/ in {REPO} to start over")
    assert not list(fresh.checkpoints_dir.glob("checkpoint-*"))


def test_a_seal_that_names_files_elsewhere_is_refused(hub, fresh, tmp_path) -> None:
    away = push(tmp_path / "away", 4)
    seal = json.loads((away.checkpoints_dir / "checkpoint-4" / "sealed.json").read_text())
    seal["files"]["../../../secret"] = {"bytes": 1, "sha256": "0"}
    change(hub, sealed_json=json.dumps(seal).encode())
    with pytest.raises(HubError, match=r"\.\./secret is missing"):
        newest_checkpoint(fresh, CONFIG, ORIGIN, None)


def test_of_other_rows_is_refused(hub, fresh, tmp_path) -> None:
    push(tmp_path / "away", 4)
    with pytest.raises(
        HubError, match=f"repository {REPO}: checkpoint-4 is of a training with another base and rows; "
    ):
        newest_checkpoint(fresh, CONFIG, {**ORIGIN, "base": "x", "rows": "y"}, None)


def test_of_other_settings_is_refused_before_any_work(hub, fresh, tmp_path) -> None:
    other = load_recipe("demo", [f"training.push_checkpoints_to={REPO}", "training.learning_rate=1e-3"])
    push(tmp_path / "away", 4, config=other)
    for check in (
        lambda: check_repository(fresh, CONFIG, resume=True),
        lambda: newest_checkpoint(fresh, CONFIG, ORIGIN, None),
    ):
        with pytest.raises(HubError, match=f"repository {REPO}: made with another training.learning_rate: 0.001 → "):
            check()


def test_a_hub_that_comes_back_is_waited_for(hub, fresh, tmp_path) -> None:
    push(tmp_path / "away", 4)
    hub.fail(f"/api/models/{REPO}", 503, times=2)
    assert newest_checkpoint(fresh, CONFIG, ORIGIN, None) is not None


def test_a_head_that_moves_while_it_is_read_is_read_again(hub, fresh, tmp_path) -> None:
    push(tmp_path / "away", 4)
    hub.fail("/resolve/", 404, times=1)
    assert newest_checkpoint(fresh, CONFIG, ORIGIN, None) is not None


def test_without_the_hub_the_run_goes_on_from_here_if_it_can(hub, fresh, tmp_path, capfd) -> None:
    push(tmp_path / "away", 4)
    hub.stop()
    close_session()
    local = save(fresh, 2)
    assert newest_checkpoint(fresh, CONFIG, ORIGIN, local) == local
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith(f"repository {REPO}: the Hub cannot be reached")
    assert said.endswith("; resuming from checkpoint-2, which is here")
    for folder in fresh.checkpoints_dir.glob("checkpoint-2"):
        for file in folder.iterdir():
            file.unlink()
    with pytest.raises(HubUnavailableError, match=f"repository {REPO}: the Hub cannot be reached"):
        newest_checkpoint(fresh, CONFIG, ORIGIN, None)


def test_a_download_that_breaks_off_leaves_nothing(hub, fresh, tmp_path) -> None:
    push(tmp_path / "away", 4)
    hub.fail("optimizer.pt", 403)
    with pytest.raises(HubError, match="the Hub answered 403"):
        newest_checkpoint(fresh, CONFIG, ORIGIN, None)
    assert [path.name for path in fresh.checkpoints_dir.iterdir()] == [".fetching"]
    (fresh.checkpoints_dir / ".fetched-killed").mkdir()
    hub.faults.clear()
    assert newest_checkpoint(fresh, CONFIG, ORIGIN, None) is not None
    assert not list(fresh.checkpoints_dir.glob(".fetched-*"))


def test_the_repository_is_made_and_is_private(hub, fresh) -> None:
    check_repository(fresh, CONFIG, resume=False)
    assert hub.repos["models", REPO].private
    check_repository(fresh, CONFIG, resume=True)


def test_without_a_key_the_hub_is_not_asked(hub, fresh) -> None:
    check_repository(fresh, load_recipe("demo"), resume=False)
    assert newest_checkpoint(fresh, load_recipe("demo"), ORIGIN, None) is None
    assert not hub.requests


def test_what_would_keep_pushes_from_working_is_found_before_training(hub, fresh, monkeypatch, tmp_path) -> None:
    def problem() -> str:
        with pytest.raises(HubError) as caught:
            check_repository(fresh, CONFIG, resume=False)
        assert TOKEN not in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    hub.role = "read"
    assert problem().startswith(f"repository {REPO}: the token may only read; set HF_TOKEN")
    hub.role = "write"
    hub.repos["models", REPO].private = False
    assert problem().startswith(f"repository {REPO}: public, and adapters")
    del hub.repos["models", REPO]
    hub.fail("/api/repos/create", 403, times=1)
    assert "the Hub answered 403 Forbidden; check HF_TOKEN" in problem()
    hub.fail("/api/repos/create", 500)
    assert "the Hub answered 500" in problem()
    hub.faults.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    assert "the Hub answered 401 Unauthorized; check HF_TOKEN" in problem()
    monkeypatch.delenv("HF_TOKEN")
    assert problem().startswith(f"repository {REPO}: needs a token of the Hub; set HF_TOKEN")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert problem().startswith(f"repository {REPO}: HF_HUB_OFFLINE forbids asking the Hub")


def test_without_resume_an_unfinished_training_is_not_overwritten(hub, fresh, tmp_path) -> None:
    push(tmp_path / "away", 4)
    with pytest.raises(HubError, match=r"holds a checkpoint of an unfinished training \(step 4\); add --resume"):
        check_repository(fresh, CONFIG, resume=False)


def test_a_hub_that_is_down_stops_a_run_only_before_it_began(hub, fresh, capfd) -> None:
    hub.stop()
    close_session()
    with pytest.raises(HubUnavailableError):
        check_repository(fresh, CONFIG, resume=False)
    check_repository(fresh, CONFIG, resume=False, started=True)
    assert capfd.readouterr().err.endswith("; the run continues, and checkpoints are pushed once it works\n")
    save(fresh, 2)
    check_repository(fresh, CONFIG, resume=True)
