"""The training history file and the progress bar, fed by the trainer's own callbacks."""

import time
from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback

from medtune.run_dir.directory import RunDir
from medtune.runtime.launch import is_main
from medtune.runtime.progress import progress_bar


class HistoryCallback(TrainerCallback):  # type: ignore[misc]
    """Writes `training/history.jsonl` and shows tokens per second, loss and the time left.

    `tokens` are real tokens of the rows, prompts included; nothing is padded.
    """

    def __init__(self, run: RunDir, epoch_steps: int):
        self.run, self.epoch_steps = run, epoch_steps
        self.tokens = 0
        self.tokens_since_log = 0
        self._stack = ExitStack()
        self._note = ""

    def count(self, tokens: int) -> None:
        """Add the tokens of the step in hand."""
        self.tokens += tokens
        self.tokens_since_log += tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar, at the step that a resumed training starts from."""
        earlier = [entry["tokens"] for entry in self.run.read_history() if "tokens" in entry]
        self.tokens = earlier[-1] if earlier else 0
        self._advance = self._stack.enter_context(
            progress_bar("Training", state.max_steps, state.global_step, unit="steps")
        )
        self._last_log = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        self._advance(1, self._note)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Append what the trainer logs."""
        if not is_main():
            return
        logs = logs or {}
        epoch = round(state.global_step / self.epoch_steps, 4)
        if "eval_loss" in logs:
            self.run.append_history({"step": state.global_step, "epoch": epoch, "validation_loss": logs["eval_loss"]})
        elif "loss" in logs:
            now = time.monotonic()
            rate = self.tokens_since_log / (now - self._last_log)
            self._last_log, self.tokens_since_log = now, 0
            self._note = f"{rate:,.0f} tok/s, loss {logs['loss']:.3f}"
            self.run.append_history(
                {
                    "step": state.global_step,
                    "epoch": epoch,
                    "loss": logs["loss"],
                    "grad_norm": logs.get("grad_norm"),
                    "learning_rate": logs.get("learning_rate"),
                    "tokens": self.tokens,
                    "tokens_per_second": round(rate, 1),
                }
            )

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the next rate here: validation is not training time."""
        self._last_log, self.tokens_since_log = time.monotonic(), 0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self._stack.close()

    def close(self) -> None:
        """Close the bar after a failure, so that the error is not drawn over."""
        self._stack.close()
