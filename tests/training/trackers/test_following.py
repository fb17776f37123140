"""A tracker that fails does not fail the run: one line, a count, and no secret in either."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from trainings import make_config, train

from medtune.run_dir.directory import RunDir
from medtune.training.trackers import following
from medtune.training.trackers.following import (
    MOST_IN_A_ROW,
    CallGuard,
    Followed,
    follow,
    send_results,
    without_secrets,
)
from medtune.training.trackers.tracker import Ending, Results, TrackedRun, Tracker
from tiny_model import Tiny

RESULTS = Results(1, {}, "", {}, None)


class Gone(Tracker):
    """A service behind a server that is gone, or goes away once the run is open."""

    opens = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def open(self, tracked: TrackedRun) -> str:
        print("a library's own word")
        return self._refuse("open") if not self.opens else "an-id"

    def callback(self) -> Any:
        from transformers import TrainerCallback

        class Refusing(TrainerCallback):  # type: ignore[misc]
            on_train_begin = on_log = on_train_end = lambda *_, **__: self._refuse("log")

        return Refusing()

    def log_results(self, results: Results) -> None:
        self._refuse("results")

    def close(self, ending: Ending) -> None:
        self._refuse(f"close {ending}")

    def _refuse(self, call: str) -> str:
        self.calls.append(call)
        raise ConnectionError("no route to https://me:my-word@tracker.example/api?token=s3cret-value\nand more")


class GoesAway(Gone):
    opens = True


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "s3cret-value")


@pytest.mark.parametrize(("service", "failures"), [(Gone, 1), (GoesAway, 8)])
def test_a_training_goes_on_without_its_tracker(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, service: type[Gone], failures: int,
) -> None:  # fmt: skip
    made: list[Gone] = []
    monkeypatch.setitem(following.SERVICES, "wandb", lambda: made.append(service()) or made[-1])  # type: ignore[arg-type]
    caplog.set_level(logging.INFO, "medtune")
    config = make_config(tiny, max_steps=2, report_to=["wandb"], checkpoint_steps=2)
    _, history, result = train(tiny, tmp_path, config)
    assert result.steps == 2
    assert len(history) == 3
    told = [line for line in caplog.messages if line.startswith("wandb: ")]
    what = "logging" if service.opens else "opening"
    assert told[0] == (
        f"wandb: {what} failed (no route to https://***@tracker.example/api?token=***); "
        "the run goes on, further failures are counted"
    )
    assert told[1:] == ([f"wandb: {failures} calls failed or were left out"] if failures > 1 else [])
    assert "a library's own word" not in capsys.readouterr().out
    # It is left alone after some failures in a row, and ended at the end.
    assert made[0].calls == (["log"] * MOST_IN_A_ROW + ["close finished"] if service.opens else ["open"])


def test_results_that_cannot_be_sent_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = GoesAway()
    monkeypatch.setitem(following.SERVICES, "trackio", lambda: service)  # type: ignore[arg-type]
    assert send_results(RunDir(tmp_path), ["trackio"], RESULTS) == {"trackio": 2}
    assert service.calls == ["results", "close finished"]
    assert RunDir(tmp_path).read_json(tmp_path / "training" / "trackers.json") == {"trackio": "an-id"}


def test_a_run_is_continued_by_its_kept_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrackedRun] = []

    class Kept(GoesAway):
        def open(self, tracked: TrackedRun) -> str:
            seen.append(tracked)
            return tracked.id

    monkeypatch.setitem(following.SERVICES, "wandb", Kept)  # type: ignore[arg-type]
    run = RunDir(tmp_path / "my run: 1")
    (first,) = follow(run, ["wandb"])
    (second,) = follow(run, ["wandb"], 4)
    assert first.is_open
    assert second.is_open
    assert [one.known for one in seen] == [None, seen[1].id]
    assert seen[1].id.startswith("my-run-1-")
    assert (seen[0].name, seen[1].step) == ("my run: 1", 4)


def test_how_a_run_ended_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = GoesAway()
    monkeypatch.setitem(following.SERVICES, "wandb", lambda: service)  # type: ignore[arg-type]
    Followed("wandb", RunDir(tmp_path), 0).close()
    monkeypatch.setattr(following.interruption, "requested", lambda: True)
    Followed("wandb", RunDir(tmp_path), 0).close()
    assert service.calls == ["close failed", "close stopped"]


def test_a_damaged_file_of_ids_is_told_and_no_run_is_opened(tmp_path: Path, caplog: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(following.SERVICES, "wandb", GoesAway)
    caplog.set_level(logging.INFO, "medtune")
    run = RunDir(tmp_path)
    run.write_text(run.trackers_file, "[1]")
    (followed,) = follow(run, ["wandb"])
    assert not followed.is_open
    assert caplog.messages[0].startswith(f"wandb: opening failed ({run.trackers_file}")


def test_a_full_disk_under_tensorboard_is_the_runs_own() -> None:
    def fill() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        CallGuard("tensorboard").attempt("logging", fill)
    guard = CallGuard("mlflow")
    assert guard.attempt("logging", fill) is None
    assert guard.failures == 1


def test_mlflows_thread_is_counted_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setitem(following.SERVICES, "mlflow", GoesAway)  # type: ignore[arg-type]
    caplog.set_level(logging.INFO, "medtune")
    logger = logging.getLogger("mlflow.utils.async_logging.async_logging_queue")
    (followed,) = follow(RunDir(tmp_path), ["mlflow"])
    for _ in range(3):
        logger.error("Failed to log run data: it is gone")
    assert followed.guard.failures == 3
    assert [line for line in caplog.messages if "gone" in line] == [
        "mlflow: logging failed (Failed to log run data: it is gone); the run goes on, further failures are counted"
    ]
    followed.close()
    logger.error("later")
    assert caplog.messages[-1] == "later"


def test_short_words_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "a")
    assert without_secrets("a server at http://host:5000 refused") == "a server at http://host:5000 refused"


def test_an_mlflow_server_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    pytest.importorskip("mlflow", reason="needs medtune[mlflow]")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:my-word@127.0.0.1:9")
    caplog.set_level(logging.INFO, "medtune")
    settings = dict(os.environ)
    assert send_results(RunDir(tmp_path), ["mlflow"], RESULTS) == {"mlflow": 1}
    assert dict(os.environ) == settings
    assert "my-word" not in caplog.text
    (line,) = [line for line in caplog.messages if line.startswith("mlflow: ")]
    assert line.startswith("mlflow: opening failed (API request to http://***@127.0.0.1:9/")
    assert len(line) < 300
