"""The trainer: whole optimiser steps, within the memory that is there, and none that would spoil the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from medtune.config.schema import Config
from medtune.errors import MedtuneError, Option, first_line
from medtune.inference.scoring import answer_losses, sums_if_they_fit
from medtune.model.adapters import lift_adapter
from medtune.model.host_store import HostMemoryError
from medtune.records import AnswerLoss, EncodedRow
from medtune.runtime import hardware, interruption
from medtune.runtime.progress import say
from medtune.training.batching import StepSampler, collate_step
from medtune.training.checkpoints.checked_trainer import CheckedTrainer
from medtune.training.checkpoints.contents import best_step
from medtune.training.checkpoints.pushing import CheckpointPusher
from medtune.training.checkpoints.sealing import prune_checkpoints, seal_checkpoint, writing_checkpoint
from medtune.training.continuation import InterruptionCallback, ValidationStoppedError
from medtune.training.health import HealthWatch, StepReading, stop_training
from medtune.training.history import HistoryCallback
from medtune.training.plan.kept_plan import keep_plan
from medtune.training.preparation import PreparedStep

T = TypeVar("T")


class AnswerTrainer(CheckedTrainer):
    """SFTTrainer whose data loader yields one optimiser step at a time, split into padding-free passes.

    The trainer's own accumulation has a fixed number of passes; here a step takes as many as its rows need under the
    token budget, and the gradient is the mean over the answer tokens of the whole step.
    """

    def __init__(
        self,
        *,
        config: Config,
        train_rows: Sequence[EncodedRow],
        validation_rows: Sequence[EncodedRow],
        history: HistoryCallback,
        stopping: InterruptionCallback,
        origin: Mapping[str, str],
        prepared: PreparedStep,
        pusher: CheckpointPusher | None,
        **kwargs: Any,
    ) -> None:
        self.config, self.history, self.stopping, self.origin = config, history, stopping, origin
        self.pusher = pusher
        self.train_rows, self.validation_rows = train_rows, validation_rows
        self.prepared = prepared
        norms = [entry["grad_norm"] for entry in history.run.read_history() if entry.get("grad_norm") is not None]
        self.watch = HealthWatch(config.training.max_gradient_spike, norms)
        weights = {name: p.detach().clone() for name, p in kwargs["model"].named_parameters() if p.requires_grad}
        # TRL wants data sets; rows are read from the lists, which takes a tenth of the time.
        super().__init__(train_dataset=_dataset(train_rows), eval_dataset=_dataset(validation_rows), **kwargs)
        # TRL rounds the adapters of a 4-bit model to bfloat16 while it is built, which breaks the float16 gradient
        # scaler and loses small updates. Put the float32 values back. (TRL 1.16; a no-op once it stops.)
        lift_adapter(self.model)
        for name, parameter in self.model.named_parameters():
            if name in weights:
                parameter.data.copy_(weights[name])
        require_float32_adapter(self.model)
        # Said here, since the base comes in evaluation mode; PEFT's wrapper does not tell.
        self.model.train()
        self.times_out_of_memory = 0
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches that are whole optimiser steps, in an order that depends on the seed alone."""
        training = self.config.training
        sampler = StepSampler(
            len(self.train_rows),
            training.effective_batch_rows,
            self.args.max_steps,
            self.config.seed,
            self.args.process_index,
            self.args.world_size,
        )
        return DataLoader(self.train_rows, batch_sampler=sampler, collate_fn=self._collate)  # type: ignore[arg-type]

    def _collate(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        budget = self.prepared.plan.tokens_per_micro_batch
        return {**collate_step(rows, tokens_per_micro_batch=budget, filler=self.train_rows[0]), "rows": list(rows)}

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over every pass of a step. Returns the step's loss, a mean over its answer tokens."""
        micro_batches = inputs["micro_batches"]
        answer_tokens, tokens, most_passes = self._over_processes(
            inputs["answer_tokens"], inputs["tokens"], len(micro_batches)
        )
        # Every pass ends in an exchange between the processes: all of them make equally many.
        micro_batches = micro_batches + [inputs["filler"]] * (most_passes - len(micro_batches))
        budget = inputs["tokens_per_micro_batch"]

        def compute() -> torch.Tensor:
            # After a change of plan, this step and the one that was fetched ahead are still split by the old one.
            changed = self.prepared.plan.tokens_per_micro_batch != budget and self.accelerator.num_processes == 1
            passes = self._collate(inputs["rows"])["micro_batches"] if changed else micro_batches
            return self.passes(model, passes, answer_tokens)

        total = self.within_memory(compute, where=f"at step {self.state.global_step + 1}")
        self.history.count(tokens)
        self._step_loss, self._step_rows = total, inputs["rows"]
        return total

    def passes(self, model: Any, micro_batches: Sequence[dict[str, Any]], answer_tokens: int) -> torch.Tensor:
        """Forward and backward over these passes. Returns their share of the loss of `answer_tokens` tokens."""
        total = torch.zeros((), device=self.args.device)
        with _in_training_mode(model):
            for number, micro_batch in enumerate(micro_batches, start=1):
                last = number == len(micro_batches)
                with nullcontext() if last else self.accelerator.no_sync(model):
                    total += super().training_step(model, micro_batch, num_items_in_batch=answer_tokens)
        return total

    def within_memory(self, compute: Callable[[], T], *, where: str, keep_optimizer: bool = True) -> T:
        """`compute()`, again by a plan that takes less whenever memory runs out; no row is left out.

        Raises MedtuneError where no plan takes less.
        """
        lacking: Literal["device", "host"]
        while True:
            try:
                return compute()
            except torch.OutOfMemoryError as error:
                lacking, problem = "device", first_line(error)
            except HostMemoryError as error:
                lacking, problem = "host", first_line(error)
            # Outside the handler: the error's frames hold the step's activations.
            self._take_less(lacking, problem, where, keep_optimizer)

    def _take_less(self, lacking: Literal["device", "host"], problem: str, where: str, keep_optimizer: bool) -> None:
        memory = "GPU" if lacking == "device" else "host"
        # Several processes would have to begin a step again together; before the first each is by itself.
        alone = self.accelerator.num_processes == 1 or not keep_optimizer
        if not alone or not self.prepared.take_less(lacking, keep_optimizer=keep_optimizer):
            why = "no other plan takes less" if alone else "several processes cannot plan a step anew"
            raise MedtuneError(
                f"training ran out of {memory} memory {where} ({problem}), and {why}",
                fix=(
                    "lower training.max_length or lora.rank, or free memory, and go on with ",
                    Option("resume"),
                    " or start over",
                ),
            )
        self.times_out_of_memory += 1
        self.args.optim = self.prepared.plan.optimizer
        if hardware.rank() == 0:
            keep_plan(self.history.run, self.prepared.plan)
        say(f"out of {memory} memory {where}; from now on {self.prepared.plan.describe()}; no row is left out")

    def _over_processes(self, answer_tokens: int, tokens: int, passes: int) -> tuple[int, int, int]:
        """The sums of the first two over all processes, and the most passes that one of them makes."""
        if self.accelerator.num_processes == 1:
            return answer_tokens, tokens, passes  # an exchange would have to wait for the device
        row = [answer_tokens, tokens, passes, int(interruption.requested())]
        counts = self.accelerator.gather(torch.tensor([row], device=self.args.device))
        sums = counts.sum(dim=0).tolist()
        self.stopping.agree(sums[3] > 0)
        return sums[0], sums[1], int(counts[:, 2].max())

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The pass's share of the step's loss. TRL's own also takes accuracy and entropy, and waits for both."""
        loss = model(**inputs).sum() / num_items_in_batch
        # DDP takes the mean over processes; `num_items_in_batch` counts the tokens of all.
        return loss * self.accelerator.num_processes

    def _clip_grad_norm(self, model: Any) -> Any:
        """Of the adapter's gradients: looking for them in the whole model takes longer than clipping them.

        Raises MedtuneError where the step must not be taken.
        """
        norm = self.accelerator.clip_grad_norm_(self.trained, self.args.max_grad_norm)
        scaler = self.accelerator.scaler
        reading = StepReading(
            step=self.state.global_step + 1,
            loss=float(self._step_loss),
            gradient_norm=float(norm),
            scale=None if scaler is None else scaler.get_scale(),
        )
        if trouble := self.watch.trouble(reading):
            self.model.zero_grad()
            rows = self._step_rows
            raise stop_training(self.history.run, trouble, reading, rows, self.validation_losses(rows))
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: transformers' figure ignores the frozen base."""
        return 0

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Validation loss as Σ nll / Σ tokens over all rows, which a mean of batch means is not."""
        losses = self.validation_losses(self.validation_rows, self._stop_validation)
        loss = math.fsum(loss.nll for loss in losses) / sum(loss.tokens for loss in losses)
        metrics = {f"{metric_key_prefix}_loss": loss}
        self._metrics["eval"].clear()
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def validation_losses(
        self, rows: Sequence[EncodedRow], on_rows: Callable[[int], None] = lambda rows: None
    ) -> list[AnswerLoss]:
        """The loss of each row's answer, as validation measures it; `on_rows` is told of rows that are done."""
        training_mode, budget = self.model.training, self.prepared.plan.tokens_per_micro_batch
        self.model.eval()
        try:
            with self.accelerator.autocast():
                return answer_losses(self.model, rows, tokens_per_batch=budget, on_rows=on_rows)
        finally:
            self.model.train(training_mode)

    def _stop_validation(self, rows: int) -> None:
        # Of several processes all would have to stop at the same pass.
        if interruption.requested() and self.accelerator.num_processes == 1:
            raise ValidationStoppedError

    def try_validation(self, rows: Sequence[EncodedRow]) -> None:
        """A pass of a validation over these rows together. Raises torch.OutOfMemoryError if they do not fit."""
        training_mode = self.model.training
        self.model.eval()
        try:
            with self.accelerator.autocast(), torch.no_grad():
                if sums_if_they_fit(self.model, rows) is None:
                    raise torch.OutOfMemoryError(f"a validation batch of {sum(len(r.input_ids) for r in rows)} tokens")
        finally:
            self.model.train(training_mode)

    def validate_first(self) -> bool:
        """The validation that was broken off at the step that training goes on from; whether training is over by it."""
        try:
            metrics = self.evaluate()
        except ValidationStoppedError as stopped:
            stopped.owed = True
            raise
        self._determine_best_metric(metrics, None)
        return bool(self.control.should_training_stop)

    def load_best(self) -> None:
        """The weights of the best checkpoint, if the training is to end with those."""
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    def save_now(self) -> None:
        """A checkpoint of the step in hand."""
        self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As the trainer does; sealed once every process has written its part, and only then are older ones deleted."""
        require_finite_adapter(self.model)
        run = self.history.run
        folder = run.checkpoints_dir / f"checkpoint-{self.state.global_step}"
        with writing_checkpoint(folder):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.state.is_world_process_zero:
            with writing_checkpoint(folder):
                seal_checkpoint(run, folder, self.origin)
            if self.pusher is not None:
                self.pusher.push(folder)
            prune_checkpoints(run, self.config.training.keep_checkpoints, best_step)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None for checkpoints."""


@contextmanager
def _in_training_mode(model: Any) -> Iterator[None]:
    """As `model` is: the trainer says `train()` before every pass, and going through thousands of modules takes the
    host as long as launching some layers."""
    model.train = lambda mode=True: model
    try:
        yield
    finally:
        del model.train


def _dataset(rows: Sequence[EncodedRow]) -> Dataset:
    return Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])


def require_float32_adapter(model: Any) -> None:
    """Raises MedtuneError, naming the weight, if a trainable parameter is not float32."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise MedtuneError(
                f"adapter weight {name} is {parameter.dtype}, not float32", fix="this is a bug in medtune"
            )


def require_finite_adapter(model: Any) -> None:
    """Raises MedtuneError, naming the weight, if a trainable parameter holds NaN or infinity."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if torch.isfinite(torch.nn.utils.get_total_norm(trained.values())):
        return  # one look, for which the device is waited for once
    for name, parameter in trained.items():
        if not torch.isfinite(parameter).all():
            raise MedtuneError(
                f"the adapter has NaN or infinite weights ({name}), which are not saved",
                fix="lower training.learning_rate or set model.dtype to bfloat16 or float32",
            )
