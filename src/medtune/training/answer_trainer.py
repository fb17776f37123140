"""The training step: whole optimiser steps, within the memory that is there, and none that would spoil the weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from medtune.runtime.distributed import gather_counts, is_main
from medtune.runtime.progress import say
from medtune.training.arguments import build_arguments
from medtune.training.batching import collate_step, steps_of, steps_per_epoch
from medtune.training.checkpoints.contents import keep_plan
from medtune.training.checkpoints.pushing import open_pusher
from medtune.training.continuation import InterruptionCallback
from medtune.training.health import HealthWatch, StepReading, require_float32_adapter, stop_training
from medtune.training.history import HistoryCallback
from medtune.training.prepared_step import TrainingJob
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
        super().__init__(
            model=model,
            args=build_arguments(job, steps),
            # TRL wants data sets; rows are read from the lists, which takes a tenth of the time.
            train_dataset=_dataset(job.train_rows),
            eval_dataset=_dataset(job.validation_rows),
            processing_class=job.tokenizer,
            callbacks=[self.history, self.stopping, *_callbacks(job)],
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
        self.pusher = open_pusher(job.run, job.training.push_checkpoints_to, job.resume_from)

    def close(self) -> None:
        """End the progress bar, so that no error is drawn over, and wait a while for the newest push."""
        self.history.close()
        if self.pusher is not None:
            self.pusher.close()

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches that are whole optimiser steps, in an order that depends on the seed alone."""
        rows, job = self.job.train_rows, self.job
        sampler = steps_of(len(rows), job.training, job.seed, steps=self.args.max_steps)
        return DataLoader(rows, batch_sampler=sampler, collate_fn=self._collate)  # type: ignore[arg-type]

    def _collate(self, rows: Sequence[EncodedRow]) -> dict[str, Any]:
        budget = self.prepared.plan.tokens_per_micro_batch
        return {**collate_step(rows, tokens_per_micro_batch=budget, filler=self.job.train_rows[0]), "rows": list(rows)}

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over every pass of a step. Returns the step's loss, a mean over its answer tokens."""
        micro_batches = inputs["micro_batches"]
        answer_tokens, tokens, most_passes = self._over_processes(
            inputs["answer_tokens"], inputs["tokens"], len(micro_batches)
        )
        # Every pass ends in an exchange between the processes: all of them need equally many.
        micro_batches = micro_batches + [inputs["filler"]] * (most_passes - len(micro_batches))
        budget = inputs["tokens_per_micro_batch"]

        def compute() -> torch.Tensor:
            # After a change of plan the step in hand is still split by the old one.
            changed = self.prepared.plan.tokens_per_micro_batch != budget and self.accelerator.num_processes == 1
            passes = self._collate(inputs["rows"])["micro_batches"] if changed else micro_batches
            return self.passes(model, passes, answer_tokens)

        total = self.within_memory(compute, where=f"at step {self.state.global_step + 1}")
        self.history.count(tokens)
        self._step_loss, self._step_rows = total, inputs["rows"]
        return total

    def passes(self, model: Any, micro_batches: Sequence[dict[str, Any]], answer_tokens: int) -> torch.Tensor:
        """Forward and backward over these passes. Returns their part of the mean loss over `answer_tokens` tokens."""
        total = torch.zeros((), device=self.args.device)
        with _in_training_mode(model):
            for number, micro_batch in enumerate(micro_batches, start=1):
                last = number == len(micro_batches)
                with nullcontext() if last else self.accelerator.no_sync(model):
                    total += super().training_step(model, micro_batch, num_items_in_batch=answer_tokens)
        return total

    def within_memory(self, compute: Callable[[], T], *, where: str, keep_optimizer: bool = True) -> T:
        """Return `compute()`, called again under a plan that takes less whenever memory runs out. No row is left out.

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
        # Several processes would have to begin a step again together; before the first step each is by itself.
        alone = self.accelerator.num_processes == 1 or not keep_optimizer
        if not alone or not self.prepared.take_less(lacking, keep_optimizer=keep_optimizer):
            why = "no other plan takes less" if alone else "several processes cannot change the plan of a step"
            less = "lower training.max_length or lora.rank, or free memory, and go on with "
            fix = (less, Option("resume"), " or start over")
            raise MedtuneError(f"training ran out of {memory} memory {where} ({problem}), and {why}", fix=fix)
        self.times_out_of_memory += 1
        self.args.optim = self.prepared.plan.optimizer
        if is_main():
            keep_plan(self.job.run, self.prepared.plan)
        say(f"out of {memory} memory {where}; from now on {self.prepared.plan.describe()}; no row is left out")

    def _over_processes(self, answer_tokens: int, tokens: int, passes: int) -> tuple[int, int, int]:
        """The sums of the first two over all processes, and the most passes that one of them makes."""
        if self.accelerator.num_processes == 1:
            return answer_tokens, tokens, passes  # an exchange would have to wait for the device
        counts, self.stopping.told = gather_counts(
            (answer_tokens, tokens, passes), stop=interruption.requested(), device=self.args.device
        )
        answers, all_tokens, most_passes = zip(*counts, strict=True)
        return sum(answers), sum(all_tokens), max(most_passes)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The pass's share of the step's loss. TRL's own also computes accuracy and entropy, and waits for both."""
        loss = model(**inputs).sum() / num_items_in_batch
        # DDP takes the mean over processes; `num_items_in_batch` counts the tokens of all.
        return loss * self.accelerator.num_processes

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
    if "tensorboard" in job.training.report_to:
        from torch.utils.tensorboard import SummaryWriter
        from transformers.integrations import TensorBoardCallback

        callbacks.append(TensorBoardCallback(SummaryWriter(log_dir=str(job.run.tracker_dir))))
    return callbacks
