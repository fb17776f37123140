"""The newest checkpoint and the best go to the Hub in the background, however often it fails; training never waits."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from medtune.errors import HubError, HubUnavailableError
from medtune.run_dir.directory import RunDir
from medtune.runtime.launch import is_main
from medtune.runtime.progress import say
from medtune.storage.hub_repositories import commit_files, open_private_repository, squash_history
from medtune.training.checkpoints.remote import SUFFIXES, names_in_repository, remote_steps
from medtune.training.checkpoints.sealing import PLAN_NAME, SEAL_NAME, link_checkpoint, step_of

# How long the end of a training waits for the newest push.
CLOSING_SECONDS = 15.0
# Between two tries: twice as long every time, up to the longest.
FIRST_DELAY, LONGEST_DELAY = 2.0, 300.0
# The same at the end of a training, while it is waited for.
CLOSING_DELAY = 1.0
_STAGED = ".pushing-"


@dataclass(frozen=True, slots=True)
class StagedCheckpoint:
    """A checkpoint to upload, in a run directory of its own, which pruning does not touch."""

    run: RunDir
    step: int

    @classmethod
    def of(cls, run: RunDir, folder: Path) -> StagedCheckpoint:
        """The sealed checkpoint `folder` of `run` and the best one so far, linked, and what goes with them, copied.

        The best is what a training may end with, so a machine that resumes it needs the best too.
        """
        staged = RunDir(Path(tempfile.mkdtemp(dir=run.checkpoints_dir, prefix=_STAGED)))
        state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        best = run.checkpoints_dir / f"checkpoint-{state.get('best_global_step')}"
        for checkpoint in {folder, best} if (best / SEAL_NAME).is_file() else {folder}:
            link_checkpoint(checkpoint, staged.checkpoints_dir / checkpoint.name, SUFFIXES)
        kept = [run.config_file, run.history_file, run.checkpoints_dir / PLAN_NAME]
        for file in [*kept, *([run.trackers_file] if run.trackers_file.is_file() else [])]:
            copy = staged.path / file.relative_to(run.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        return cls(staged, step_of(folder))

    def remove(self) -> None:
        """Delete it, once it has arrived or another takes its place."""
        shutil.rmtree(self.run.path, ignore_errors=True)


class CheckpointPusher:
    """Pushes the newest of the checkpoints that it is given; one that waits is dropped for a newer one."""

    def __init__(self, run: RunDir, repo: str):
        self.run, self.repo = run, repo
        for left in run.checkpoints_dir.glob(f"{_STAGED}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._changed = threading.Condition()
        self._waiting: StagedCheckpoint | None = None
        self._busy = False
        self._deadline: float | None = None
        self._newest = self._arrived = 0
        self._not_before, self._asked_not_before = 0.0, 0.0
        self._delay = FIRST_DELAY
        self._told: set[str] = set()
        # Uploads would draw over the training's bar; nothing else comes from or goes to the Hub meanwhile.
        self._had_bars = not are_progress_bars_disabled()
        disable_progress_bars()
        # A daemon: the process does not wait at its end for a Hub that hangs.
        self._thread = threading.Thread(target=self._work, name="checkpoint-pusher", daemon=True)
        self._thread.start()

    def push(self, folder: Path) -> None:
        """Have a sealed checkpoint pushed. Returns at once."""
        try:
            staged = StagedCheckpoint.of(self.run, folder)
        except OSError as error:
            say(f"repository {self.repo}: {folder.name} is not pushed ({error.strerror}: {error.filename})")
            return
        with self._changed:
            if self._waiting is not None:
                self._waiting.remove()
            self._waiting, self._newest = staged, staged.step
            self._changed.notify_all()

    def close(self) -> None:
        """Wait a while for the newest push, and say if it did not arrive. One that is under way may still end well."""
        with self._changed:
            self._deadline = time.monotonic() + CLOSING_SECONDS
            # At once, unless the Hub asked to wait.
            self._not_before = self._asked_not_before
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy and self._waiting is None, CLOSING_SECONDS)
            if self._arrived < self._newest:
                there = f"step {self._arrived}" if self._arrived else "none of this training's"
                say(
                    f"repository {self.repo}: the checkpoint of step {self._newest} has not arrived; "
                    f"the last one that did is {there}"
                )
        if self._had_bars:
            enable_progress_bars()

    def _work(self) -> None:
        while (staged := self._take()) is not None:
            again = False
            try:
                again = self._attempt(staged)
            finally:
                with self._changed:
                    if again and self._waiting is None:
                        self._waiting = staged
                    else:
                        staged.remove()
                    self._busy = False
                    self._changed.notify_all()

    def _take(self) -> StagedCheckpoint | None:
        """The checkpoint to push now, or None at the end."""
        with self._changed:
            while True:
                now, waiting = time.monotonic(), self._waiting
                ends = self._deadline is not None and (waiting is None or self._not_before > self._deadline)
                if waiting is not None and (ends or now >= self._not_before):
                    self._waiting = None
                    if not ends:
                        self._busy = True
                        return waiting
                    waiting.remove()
                    self._changed.notify_all()
                if ends:
                    return None
                self._changed.wait(self._not_before - now if waiting is not None else None)

    def _attempt(self, staged: StagedCheckpoint) -> bool:
        """Push once. Returns whether to try again."""
        try:
            self._upload(staged)
        except HubUnavailableError as error:
            if error.reason not in self._told:
                self._told.add(error.reason)
                say(f"repository {self.repo}: {error.reason}; the checkpoint is pushed later, training goes on")
            now = time.monotonic()
            self._asked_not_before = now + error.seconds
            delay = self._delay * random.uniform(0.5, 1) if self._deadline is None else CLOSING_DELAY
            self._not_before = now + max(error.seconds, delay)
            self._delay = min(2 * self._delay, LONGEST_DELAY)
            return True
        except HubError as error:
            say(f"{error}; the checkpoint of step {staged.step} is not pushed")
            return False
        self._delay = FIRST_DELAY
        self._told.clear()
        return False

    def _upload(self, staged: StagedCheckpoint) -> None:
        state = open_private_repository(self.repo)
        there = max(remote_steps(state), default=None)
        if there is not None and there > staged.step:
            raise HubError(f"repository {self.repo}", f"holds a newer checkpoint (step {there})")
        if there != staged.step:
            files = names_in_repository(staged.run)
            prefix = f"{staged.run.checkpoints_dir.name}/"
            older = {name for name in state.files if name.startswith(prefix) and name not in files}
            message = f"Checkpoint of step {staged.step}"
            commit_files(self.repo, files, deleted=older, message=message)
            say(f"repository {self.repo}: has the checkpoint of step {staged.step}")
            self._arrived = staged.step
            # The checkpoint is there; the next push squashes this one's history too.
            with suppress(HubError):
                squash_history(self.repo, message)
        self._arrived = staged.step


def open_pusher(run: RunDir, repo: str | None, resumed: Path | None) -> CheckpointPusher | None:
    """The pusher of a training that names a repository, in its first process. It pushes `resumed` if need be."""
    if repo is None or not is_main():
        return None
    pusher = CheckpointPusher(run, repo)
    if resumed is not None:
        pusher.push(resumed)
    return pusher
