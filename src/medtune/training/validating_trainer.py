"""Validation: the loss of every row, and its mean over answer tokens."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from typing import Any

import torch

from medtune.inference.scoring import answer_losses, sums_if_they_fit
from medtune.records import AnswerLoss, EncodedRow
from medtune.runtime import interruption
from medtune.runtime.distributed import exchange
from medtune.runtime.launch import own_share
from medtune.training.checkpoints.checked_trainer import CheckedTrainer
from medtune.training.continuation import ValidationStoppedError
from medtune.training.prepared_step import PreparedStep


class ValidatingTrainer(CheckedTrainer):
    """SFTTrainer that validates as `medtune evaluate` measures reference losses, and stops at a signal."""

    prepared: PreparedStep

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Validation loss as Σ nll / Σ tokens over all rows, which a mean of batch means is not."""
        losses = self.validation_losses(self.job.validation_rows, self._stop_validation)
        loss = math.fsum(loss.nll for loss in losses) / sum(loss.tokens for loss in losses)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def validation_losses(
        self, rows: Sequence[EncodedRow], on_rows: Callable[[int], None] = lambda rows: None
    ) -> list[AnswerLoss]:
        """The loss of each row's answer, as validation measures it; `on_rows` is told of rows that are done.

        Raises ValidationStoppedError, in every process, where `on_rows` does in one of them.
        """
        budget = self.prepared.plan.tokens_per_micro_batch
        own = own_share([len(row.input_ids) for row in rows])
        shards = self.prepared.shards
        found: list[tuple[int, float, int]] | None = None
        # A process that stops has no more passes of its own, and takes part in those of the others.
        taking_part = nullcontext() if shards is None else shards.uneven_passes()
        with self._in_evaluation_mode(), taking_part, suppress(ValidationStoppedError):
            losses = answer_losses(self.model, [rows[i] for i in own], tokens_per_batch=budget, on_rows=on_rows)
            found = [(i, loss.nll, loss.tokens) for i, loss in zip(own, losses, strict=True)]
        told = exchange(found)
        if None in told:
            raise ValidationStoppedError
        return [AnswerLoss(nll, tokens) for _, nll, tokens in sorted(chain.from_iterable(filter(None, told)))]

    def _stop_validation(self, rows: int) -> None:
        if interruption.requested():
            raise ValidationStoppedError

    def try_validation(self, rows: Sequence[EncodedRow]) -> None:
        """One batch of a validation, of all these rows. Raises torch.OutOfMemoryError if they do not fit."""
        with self._in_evaluation_mode(), torch.no_grad():
            if sums_if_they_fit(self.model, rows) is None:
                raise torch.OutOfMemoryError(f"a validation batch of {sum(len(r.input_ids) for r in rows)} tokens")

    @contextmanager
    def _in_evaluation_mode(self) -> Iterator[None]:
        training_mode = self.model.training
        self.model.eval()
        try:
            with self.accelerator.autocast():
                yield
        finally:
            self.model.train(training_mode)

    def validate_first(self) -> bool:
        """Make up for the validation that a signal broke off. Returns whether training is over by what it found."""
        try:
            metrics = self.evaluate()
        except ValidationStoppedError as stopped:
            stopped.owed = True
            raise
        self._determine_best_metric(metrics, None)
        return bool(self.control.should_training_stop)
