"""Checkpoints that come back from a loopback Hub: the newer one is taken, and what would go wrong is found before."""

from pathlib import Path

import pytest
from huggingface_hub import close_session
from pushed_checkpoints import CONFIG, ORIGIN, REPO, TOKEN, push, save

from medtune.config.recipes import load_recipe
from medtune.errors import HubError, HubUnavailableError
from medtune.run_dir.directory import RunDir
from medtune.training.checkpoints.remote import check_repository, newest_checkpoint
from medtune.training.checkpoints.sealing import damage_of


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


def test_a_fresh_machine_continues_in_the_same_trackers(hub, fresh, tmp_path) -> None:
    away = RunDir(tmp_path / "away")
    away.write_json(away.trackers_file, {"mlflow": "an-id"})
    push(tmp_path / "away", 4)
    newest_checkpoint(fresh, CONFIG, ORIGIN, None)
    assert fresh.read_json(fresh.trackers_file) == {"mlflow": "an-id"}
