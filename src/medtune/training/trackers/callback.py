"""Transformers' callback of a tracker, whose failures are the tracker's and not the training's."""

from functools import partial
from typing import Any

from transformers import TrainerCallback

from medtune.training.trackers.following import Followed


class TrackerCallback(TrainerCallback):  # type: ignore[misc]
    """Hands a training's events on to the callback of one tracker."""

    def __init__(self, followed: Followed) -> None:
        self.followed = followed
        self._theirs = followed.guard.attempt("opening", followed.service.callback)

    def _hand_on(self, event: str, *args: Any, **kwargs: Any) -> None:
        if self._theirs is not None:
            self.followed.guard.attempt("logging", partial(getattr(self._theirs, event), *args, **kwargs))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the settings."""
        self._hand_on("on_train_begin", args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send what the trainer logs."""
        self._hand_on("on_log", args, state, control, **kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send the checkpoint, if a variable of the tracker asks for that."""
        self._hand_on("on_save", args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Send what waits."""
        self._hand_on("on_train_end", args, state, control, **kwargs)
        self.followed.ending = "finished"
