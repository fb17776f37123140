"""Checkpoints on their way to a loopback Hub that fails in every way that one does."""

import time
from pathlib import Path

import pytest
from pushed_checkpoints import REPO, TOKEN, save_unlike, wait_until

from medtune.training.checkpoints import pushing
from medtune.training.checkpoints.pushing import CheckpointPusher
from medtune.training.checkpoints.sealing import damage_of, prune_checkpoints


def assert_whole(files: dict[str, bytes], folder: Path) -> None:
    """What a reader of this commit gets is everything that it takes to go on."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    checkpoints = list((folder / "checkpoints").glob("checkpoint-*"))
    assert [damage_of(checkpoint) for checkpoint in checkpoints] == [None] * len(checkpoints) != []
    assert {"config.yaml", "training/history.jsonl", "checkpoints/plan.json"} <= files.keys()


def test_the_newest_replaces_the_older_and_nothing_private_goes_up(hub, run, tmp_path) -> None:
    pusher = CheckpointPusher(run, REPO)
    for number, step in enumerate((2, 4, 6), start=1):
        pusher.push(save_unlike(run, step))
        wait_until(lambda number=number: hub.asked("super-squash") == number)
    pusher.close()
    assert hub.steps(REPO) == [6]
    assert hub.repos["models", REPO].private
    assert len(hub.repos["models", REPO].commits) == 1, "history is squashed"
    assert set(hub.head(REPO)) == {
        ".gitattributes",
        "config.yaml",
        "training/history.jsonl",
        "checkpoints/plan.json",
    } | {
        f"checkpoints/checkpoint-6/{name}"
        for name in (
            "adapter_model.safetensors",
            "optimizer.pt",
            "adapter_config.json",
            "trainer_state.json",
            "sealed.json",
        )
    }
    for number, files in enumerate(hub.heads):
        assert_whole(files, tmp_path / str(number))
    assert not list(run.checkpoints_dir.glob(".*"))


def test_the_best_stays_beside_the_newest(hub, run) -> None:
    save_unlike(run, 2)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 6, best=2))
    pusher.close()
    assert hub.steps(REPO) == [2, 6]
    assert hub.head(REPO)["checkpoints/checkpoint-2/optimizer.pt"] == b"content of optimizer.pt2"


def test_while_one_goes_up_only_the_newest_of_the_others_waits(hub, run) -> None:
    hub.fail("/commit/", "be slow", times=1)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    wait_until(lambda: hub.asked("/preupload/") > 0)
    began = time.monotonic()
    for step in (4, 6):
        pusher.push(save_unlike(run, step))
    prune_checkpoints(run, 1, lambda folder: None)
    run.append_history({"step": 7})
    assert time.monotonic() - began < 0.5, "training waits for no push"
    pusher.close()
    pushed = [{name.split("/")[1] for name in files if "/checkpoint-" in name} for files in hub.heads]
    assert pushed == [{"checkpoint-2"}, {"checkpoint-6"}]
    assert hub.head(REPO)["training/history.jsonl"] == b"training/history.jsonl at first\n"


@pytest.mark.parametrize(
    ("match", "failure", "reason"),
    [
        (f"/api/models/{REPO}", 500, "the Hub answered 500 Internal Server Error"),
        ("/commit/", 503, "the Hub answered 503 Service Unavailable"),
        ("/commit/", "hang up", "the Hub cannot be reached"),
        ("/commit/", "lose the answer", "the Hub cannot be reached"),
        ("/commit/", "web page", "what answered is not the Hub"),
    ],
)
def test_what_fails_is_said_once_and_arrives_later(hub, run, capfd, match, failure, reason) -> None:
    hub.fail(match, failure, times=3)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    wait_until(lambda: hub.steps(REPO) == [2])
    pusher.close()
    said = capfd.readouterr().err.splitlines()
    assert said[0].startswith(f"repository {REPO}: {reason}")
    assert said[0].endswith("; the checkpoint is pushed later, training goes on")
    assert said[1:] in ([f"repository {REPO}: has the checkpoint of step 2"], []), said


def test_a_file_that_breaks_off_is_sent_again(hub, run) -> None:
    hub.fail("/lfs/", "hang up", times=1)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    pusher.close()
    assert hub.steps(REPO) == [2]


def test_a_busy_hub_is_left_alone_as_long_as_it_asks(hub, run, capfd) -> None:
    hub.fail("/commit/", 429, times=1, retry_after=2)
    pusher = CheckpointPusher(run, REPO)
    began = time.monotonic()
    pusher.push(save_unlike(run, 2))
    wait_until(lambda: hub.steps(REPO) == [2])
    assert time.monotonic() - began >= 2
    pusher.close()
    assert "the Hub answered 429 Too Many Requests" in capfd.readouterr().err


def test_a_newer_checkpoint_takes_the_place_of_one_that_failed(hub, run, monkeypatch) -> None:
    monkeypatch.setattr(pushing, "FIRST_DELAY", 100)
    hub.fail("/commit/", 500, times=1)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    wait_until(lambda: hub.asked("/commit/", 500) == 1)
    pusher.push(save_unlike(run, 4))
    pusher.close()
    assert [sorted({name.split("/")[1] for name in files if "/checkpoint-" in name}) for files in hub.heads] == [
        ["checkpoint-4"]
    ]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_said_once_and_the_next_checkpoint_is_tried(hub, run, capfd, status) -> None:
    hub.fail("/commit/", status, times=1)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    wait_until(lambda: hub.asked("/commit/", status) == 1 and not pusher._busy)
    time.sleep(0.2)
    assert hub.asked("/commit/") == 0
    pusher.push(save_unlike(run, 4))
    pusher.close()
    assert hub.steps(REPO) == [4]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert f"repository {REPO}: the Hub answered {status}" in said[0]
    assert "check HF_TOKEN" in said[0]
    assert said[0].endswith("; the checkpoint of step 2 is not pushed")


def test_a_repository_made_public_gets_no_more(hub, run, capfd) -> None:
    hub.add("models", REPO, {".gitattributes": b""})
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    pusher.close()
    assert hub.steps(REPO) == []
    assert not hub.store
    assert f"repository {REPO}: public, and adapters may have learnt rows by heart" in capfd.readouterr().err


def test_a_newer_one_is_not_overwritten(hub, run, capfd) -> None:
    hub.add("models", REPO, {"checkpoints/checkpoint-9/sealed.json": b"{}"}, private=True)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    pusher.close()
    assert hub.steps(REPO) == [9]
    assert "holds a newer checkpoint (step 9)" in capfd.readouterr().err


def test_a_history_that_cannot_be_squashed_is_no_failure(hub, run, capfd) -> None:
    hub.fail("/super-squash/", 403)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    pusher.close()
    assert hub.steps(REPO) == [2]
    assert capfd.readouterr().err == f"repository {REPO}: has the checkpoint of step 2\n"


def test_what_a_killed_process_left_is_cleared(hub, run) -> None:
    (run.checkpoints_dir / ".pushing-old" / "checkpoints").mkdir(parents=True)
    CheckpointPusher(run, REPO).close()
    assert [path.name for path in run.checkpoints_dir.iterdir()] == ["plan.json"]


def test_no_token_and_no_signed_address_is_shown(hub, run, capfd) -> None:
    for match, failure in (("/lfs/", 403), ("/commit/", 400), (f"/api/models/{REPO}", "hang up")):
        hub.faults.clear()
        hub.fail(match, failure, times=1)
        pusher = CheckpointPusher(run, REPO)
        pusher.push(save_unlike(run, len(hub.requests) + 1))
        pusher.close()
    said = capfd.readouterr().err
    assert said.count("403") == said.count("400") == 1
    assert TOKEN not in said
    assert hub.SIGNATURE not in said
