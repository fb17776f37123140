"""The end of a training waits for its last push: not long, and not for a Hub that asked to be left alone."""

import time

from pushed_checkpoints import REPO, save_unlike, wait_until

from medtune.training.checkpoints import pushing
from medtune.training.checkpoints.pushing import CheckpointPusher


def test_at_the_end_a_busy_hub_is_not_asked_again(hub, run) -> None:
    hub.fail("/commit/", 429, retry_after=60)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    wait_until(lambda: hub.asked("/commit/", 429) == 1 and not pusher._busy)
    began = time.monotonic()
    pusher.close()
    assert time.monotonic() - began < 2
    assert hub.asked("/commit/", 429) == 1
    assert not list(run.checkpoints_dir.glob(".*"))


def test_at_the_end_a_last_try_is_made_at_once(hub, run, monkeypatch) -> None:
    monkeypatch.setattr(pushing, "FIRST_DELAY", 100)
    hub.fail("/commit/", 500, times=1)
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    wait_until(lambda: hub.asked("/commit/", 500) == 1)
    pusher.close()
    assert hub.steps(REPO) == [2]


def test_a_hub_that_hangs_holds_up_the_end_only_for_a_while(hub, run, capfd, monkeypatch) -> None:
    monkeypatch.setattr(pushing, "CLOSING_SECONDS", 0.3)
    hub.fail("/commit/", "hang")
    pusher = CheckpointPusher(run, REPO)
    pusher.push(save_unlike(run, 2))
    began = time.monotonic()
    pusher.close()
    assert time.monotonic() - began < 2
    assert capfd.readouterr().err == (
        f"repository {REPO}: the checkpoint of step 2 has not arrived; "
        "the last one that did is none of this training's\n"
    )
