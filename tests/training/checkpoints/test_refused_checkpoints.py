"""Checkpoints in a repository that are refused: with a program in them, not whole, or of another training."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from pushed_checkpoints import CONFIG, ORIGIN, REPO, change, push

from medtune.config.recipes import load_recipe
from medtune.errors import HubError
from medtune.training.checkpoints.remote import check_repository, newest_checkpoint


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
