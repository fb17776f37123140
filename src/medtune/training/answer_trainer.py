"""The training step: whole optimiser steps, within the memory that is there, and none that would spoil the weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from medtune.errors import MedtuneError, Option, first_line
from medtune.model.adapters import lift_adapter
from medtune.model.host_store import HostMemoryError
from medtune.records import EncodedRow
from medtune.runtime import interruption
from medtune.runtime.launch import is_main, world_size
from medtune.runtime.progress import say
from medtune.runtime.tensors import any_process
from medtune.training.arguments import build_arguments
from medtune.training.batching import collate_step, steps_of, steps_per_epoch
from medtune.training.checkpoints.contents import keep_plan
from medtune.training.checkpoints.pushing import open_pusher
from medtune.training.checkpoints.sealing import step_of
from medtune.training.continuation import InterruptionCallback
from medtune.training.gradient_exchange import GradientExchange
from medtune.training.health import HealthWatch, StepReading, require_float32_adapter, stop_training
from medtune.training.history import HistoryCallback
from medtune.training.prepared_step import TrainingJob
from medtune.training.trackers.callback import TrackerCallback
from medtune.training.trackers.following import Followed, follow, trainer_arguments
from medtune.training.validating_trainer import ValidatingTrainer

T = TypeVar("T")


class AnswerTrainer(ValidatingTrainer):
    """SFTTrainer whose data loader yields one optimiser step at a time, split into padding-free passes.

    The trainer's own accumulation has a fixed number of passes; here a step takes as many as its rows need under the
    token budget, and the gradient is the mean over the answer tokens of the whole step.
    """

    def __init__(self, job: TrainingJob, steps: int) -> None:
        """For `steps` optimiser steps; `close` has to follow."""
        self.job, self.prepared = job, job.prepared
        self.history = HistoryCallback(job.run, steps_per_epoch(len(job.train_rows), job.training.effective_batch_rows))
        self.stopping = InterruptionCallback(job.run, self.validate_first)
        norms = [entry["grad_norm"] for entry in job.run.read_history() if entry.get("grad_norm") is not None]
        self.watch = HealthWatch(job.training.max_gradient_spike, norms)
        self.times_out_of_memory = 0
        model = job.prepared.model
        weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.trackers = follow(job.run, job.training.report_to, step_of(job.resume_from) if job.resume_from else 0)
        super().__init__(
            model=model,
            args=build_arguments(job, steps, **trainer_arguments(self.trackers)),
            # TRL wants data sets; rows are read from the lists, which takes a tenth of the time.
            train_dataset=_dataset(job.train_rows),
            eval_dataset=_dataset(job.validation_rows),
            processing_class=job.tokenizer,
            callbacks=[self.history, self.stopping, *_callbacks(job), *_followed(self.trackers)],
        )
        self.remove_callback(PrinterCallback)
        # TRL rounds the adapters of a 4-bit model to bfloat16 while it is built, which breaks the float16 gradient
        # scaler and loses small updates. Put the float32 values back. (TRL 1.16; a no-op once it stops.)
        lift_adapter(self.model)
        for name, parameter in self.model.named_parameters():
            if name in weights:
                parameter.data.copy_(weights[name])
        require_float32_adapter(self.model)
        # The base is loaded in evaluation mode, and PEFT's wrapper does not tell.
        self.model.train()
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # Loss, requests to stop, and times that memory ran out, of the step in hand.
        self.exchange = GradientExchange(self.trained, counts=3) if world_size() > 1 else None
        self.pusher = open_pusher(job.run, job.training.push_checkpoints_to, job.resume_from)

    def close(self) -> None:
        """End the progress bar, so that no error is drawn over, and wait a while for the newest push."""
        self.history.close()
        for tracker in self.trackers:
            tracker.close()
        if self.exchange is not None:
            self.exchange.close()
        if self.pusher is not None:
            self.pusher.close()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches that are whole optimiser steps, in an order that depends on the seed alone."""
        rows, job = self.job.train_rows, self.job
        sampler = steps_of(len(rows), job.training, job.seed, steps=self.args.max_steps)
        return DataLoader(rows, batch_sampler=sampler, collate_fn=self._collate)  # type: ignore[arg-type]

    def _collate(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        budget = self.prepared.plan.tokens_per_micro_batch
        lockstep = self.prepared.shards is not None
        return {**collate_step(rows, tokens_per_micro_batch=budget, lockstep=lockstep), "rows": list(rows)}

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over every pass of a step. Returns the step's loss, a mean over its answer tokens."""
        times = self.times_out_of_memory

        def compute() -> torch.Tensor:
            # After a change of plan the step in hand is still split by the old one.
            changed = self.prepared.plan.tokens_per_micro_batch != inputs["tokens_per_micro_batch"]
            passes = self._collate(inputs["rows"])["micro_batches"] if changed else inputs["micro_batches"]
            if self.prepared.shards is not None:
                self.prepared.shards.promise(*[True] * len(passes))
            if self.exchange is not None:
                self.exchange.begin()
            return self.passes(model, passes, inputs["answer_tokens"], exchange=self.exchange)

        total = self.within_memory(compute, where=f"at step {self.state.global_step + 1}")
        if self.exchange is not None:
            total = self._add_up(self.exchange, total, self.times_out_of_memory - times)
        self.history.count(inputs["tokens"])
        self._step_loss, self._step_rows = total, inputs["rows"]
        return total

    def passes(
        self,
        model: Any,
        micro_batches: Sequence[dict[str, Any]],
        answer_tokens: int,
        exchange: GradientExchange | None = None,
    ) -> torch.Tensor:
        """Forward and backward over these passes. Returns their part of the mean loss over `answer_tokens` tokens."""
        total = torch.zeros((), device=self.args.device)
        with _in_training_mode(model):
            for number, micro_batch in enumerate(micro_batches, start=1):
                # Where passes gather weights, all exchanges have to come in one order, also after memory ran out.
                alone = self.prepared.shards is None
                if alone and exchange is not None and number == len(micro_batches):
                    exchange.expect_last_pass()
                total += super().training_step(model, micro_batch, num_items_in_batch=answer_tokens)
        return total

    def _add_up(self, exchange: GradientExchange, loss: torch.Tensor, times_out_of_memory: int) -> torch.Tensor:
        """Gradients and loss of all processes, which agree on whether to stop and on the plan of the next step."""
        whole, told, out_of_memory = exchange.finish(loss, float(interruption.requested()), float(times_out_of_memory))
        self.stopping.told = told > 0
        if out_of_memory:
            self.agree(keep_optimizer=True)
        return loss.new_tensor(whole)

    def within_memory(self, compute: Callable[[], T], *, where: str, keep_optimizer: bool = True) -> T:
        """Return `compute()`, called again under a plan that takes less whenever memory runs out. No row is left out.

        With shared weights all call it again if memory runs out in one of them. Raises MedtuneError where no plan takes
        less.
        """
        while True:
            lacking: Literal["device", "host"] | None = None
            problem = ""
            try:
                result = compute()
            except torch.OutOfMemoryError as error:
                lacking, problem = "device", first_line(error)
            except HostMemoryError as error:
                lacking, problem = "host", first_line(error)
            shards = self.prepared.shards
            if shards is not None:
                shards.keep_promise()
            if not (lacking is not None if shards is None else any_process(lacking is not None)):
                return result
            # Outside the handler: the error's frames hold the step's activations.
            if lacking is not None:
                self._take_less(lacking, problem, where, keep_optimizer)
            if shards is not None:
                self.agree(keep_optimizer=keep_optimizer)

    def _take_less(self, lacking: Literal["device", "host"], problem: str, where: str, keep_optimizer: bool) -> None:
        memory = "GPU" if lacking == "device" else "host"
        if not self.prepared.take_less(lacking, keep_optimizer=keep_optimizer):
            less = "lower training.max_length or lora.rank, or free memory, and go on with "
            fix = (less, Option("resume"), " or start over")
            problem = f"training ran out of {memory} memory {where} ({problem}), and no other plan takes less"
            raise MedtuneError(problem, fix=fix)
        self.times_out_of_memory += 1
        self._adopt_plan()
        say(f"out of {memory} memory {where}; from now on {self.prepared.plan.describe()}; no row is left out")

    def agree(self, *, keep_optimizer: bool) -> None:
        """After memory ran out in one of the processes: all go on by the plan that fits where there is least."""
        if self.prepared.agree(keep_optimizer=keep_optimizer):
            self._adopt_plan()
            say(f"memory ran out in another process; from now on {self.prepared.plan.describe()}")

    def _adopt_plan(self) -> None:
        self.args.optim = self.prepared.plan.optimizer
        if is_main():
            keep_plan(self.job.run, self.prepared.plan)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The pass's share of the step's loss. TRL's own also computes accuracy and entropy, and waits for both."""
        return model(**inputs).sum() / num_items_in_batch

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip the adapter's gradients alone: finding them in the whole model takes longer than clipping them.

        Raises MedtuneError if the step must not be taken.
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
            raise stop_training(self.job.run, trouble, reading, rows, self.validation_losses(rows))
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: transformers' figure ignores the frozen base."""
        return 0


@contextmanager
def _in_training_mode(model: Any) -> Iterator[None]:
    """Ignore `model.train()`, which the trainer calls before every pass: going through thousands of modules takes the
    host as long as launching some layers."""
    model.train = lambda mode=True: model
    try:
        yield
    finally:
        del model.train


def _dataset(rows: Sequence[EncodedRow]) -> Dataset:
    return Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])


def _callbacks(job: TrainingJob) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if job.training.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(job.training.early_stopping_patience))
    return callbacks


def _followed(trackers: Sequence[Followed]) -> list[TrainerCallback]:
    return [TrackerCallback(tracker) for tracker in trackers if tracker.is_open]
