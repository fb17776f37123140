"""A training before its first step: its rows, and a model made ready for them by a plan, or by one that takes less."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from medtune.config.schema import Config
from medtune.config.training import TrainingSection
from medtune.errors import ModelError, first_line
from medtune.model.decoder_structure import reason_not_to_fuse
from medtune.model.fused.layers import FusedLayer, fuse_layers
from medtune.model.fused.lora_function import fuse_adapters
from medtune.model.host_store import HostMemoryError, HostStore, move_embeddings_to_host
from medtune.model.quantization import AS_STORED, DEQUANTIZED
from medtune.model.sharding import ShardedWeights
from medtune.records import EncodedRow
from medtune.run_dir.directory import RunDir
from medtune.runtime.distributed import exchange
from medtune.runtime.hardware import release_memory, torch_dtype
from medtune.runtime.launch import world_size
from medtune.runtime.progress import say
from medtune.training.arguments import checkpoint_whole_layers, optimizer_names
from medtune.training.batching import largest_step, total_steps
from medtune.training.plan.choosing import plan_training
from medtune.training.plan.machines import least_machine, this_machine
from medtune.training.plan.peaks import GIB, TrainingPlan
from medtune.training.plan.shapes import model_shape

# After memory ran out, the share of the predicted peak, or of the host memory in use, that the next plan may take.
LESS = 0.92


class PreparedStep:
    """A PeftModel made ready for its training step, and the plan that says how to compute it.

    Where memory runs out although the plan was to fit, `take_less` makes another. Every plan computes the same
    gradient.
    """

    def __init__(
        self,
        model: Any,
        rows: Sequence[EncodedRow],
        config: Config,
        *,
        device: str,
        dtype: str,
        plan: TrainingPlan | None = None,
        shards: ShardedWeights | None = None,
    ) -> None:
        """Plan the step, or take the `plan` of a resumed training, and say so. Raises ModelError if nothing fits."""
        self.model, self.device, self.dtype = model, device, torch_dtype(dtype)
        self.shards = shards
        self.training = config.training
        self.shape = model_shape(model, config, torch.device(device), self.dtype)
        self.machine = least_machine(this_machine(device, config.training))
        # What a plan may choose no longer, by configuration key.
        self.settled: dict[str, Any] = {}
        if shards is not None:
            self.settled["weights"] = AS_STORED
        lengths = [len(row.input_ids) for row in rows]
        self.largest_step, self.longest_row = largest_step(lengths, self.training, config.seed), max(lengths)
        self.optimizers = optimizer_names(config.training.optimizer, device)
        # Whether host memory was too short for what the configuration asks to be kept there.
        self._free_host_memory = False
        if plan is not None:
            self.optimizers = (plan.optimizer,)  # whose state the checkpoint holds
        if plan is None or self._exceeds_new_limit(plan):
            self.plan = self._first_plan()
            say(f"training step: {self.plan.describe()}")
        else:
            self.plan = plan
            say(f"training step, as it began: {plan.describe()}")
        self.layers = self._fuse(config)
        self._follow()

    def take_less(self, lacking: Literal["device", "host"], *, keep_optimizer: bool) -> bool:
        """Give up a pass that ran out of device or host memory, and plan again. Returns False if no plan takes less.

        Settings made by hand are kept as long as they can fit. `keep_optimizer` says that the optimiser has state.
        """
        self._forget()
        taken, waiting = self.plan.peak_bytes or self.machine.limit, self._host_bytes()
        if lacking == "host":
            self.machine = replace(self.machine, host=int(waiting * LESS))
        else:
            # Another process may have taken memory since.
            now = this_machine(self.device, self.training).limit
            limit = min(self.machine.limit, taken, now)
            self.machine = replace(self.machine, limit=int(limit * LESS))
        if keep_optimizer:
            self.optimizers = (self.plan.optimizer,)
        # There is no way back: what was given up to save memory stays so.
        if self.plan.weights == AS_STORED:
            self.settled["weights"] = AS_STORED
        if self.plan.embeddings == "host":
            self.settled["embeddings"] = "host"
        self._free_host_memory |= self.training.checkpointing == "offload" and lacking == "host"
        self._plan_again()
        return self._host_bytes() < waiting if lacking == "host" else self.plan.peak_bytes < taken

    def agree(self, *, keep_optimizer: bool) -> bool:
        """Let all processes follow the plan that fits the one with the least memory. Returns whether it is another."""
        if world_size() == 1:
            return False
        known = self.plan
        self.machine = least_machine(self.machine)
        self.settled = {key: value for settled in exchange(self.settled) for key, value in settled.items()}
        self._free_host_memory = any(exchange(self._free_host_memory))
        if keep_optimizer:
            self.optimizers = (known.optimizer,)
        if any(exchange(known.describe() != self._next_plan().describe())):
            self._release()
            self._plan_again()
        return self.plan != known

    def _plan_again(self) -> None:
        self.plan = self._next_plan()
        self._follow()

    def _next_plan(self) -> TrainingPlan:
        try:
            return self._planned(_freed(self.training) if self._free_host_memory else self.training)
        except ModelError:
            # Perhaps no plan is predicted to fit, but one takes less than this one did.
            return self._planned(_freed(self.training), must_fit=False)

    def _exceeds_new_limit(self, plan: TrainingPlan) -> bool:
        """Whether `training.memory_gib` was set lower than the plan takes since it was made."""
        most = (self.training.memory_gib or math.inf) * GIB
        return self.device != "cpu" and plan.limit_bytes > most and plan.peak_bytes > most

    def _first_plan(self) -> TrainingPlan:
        """The best plan; on a GPU also one that is set by hand and predicted not to fit: the rehearsal decides."""
        try:
            return self._planned(self.training)
        except ModelError:
            if self.device == "cpu":
                raise
        self._planned(_freed(self.training))  # raises where nothing can fit
        say("training step: as set by hand it is predicted not to fit; if it does not, another plan is chosen")
        return self._planned(self.training, must_fit=False)

    def _planned(self, training: TrainingSection, *, must_fit: bool = True) -> TrainingPlan:
        return plan_training(
            self.shape,
            self.machine,
            training.model_copy(update=self.settled),
            largest_step=self.largest_step,
            longest_row=self.longest_row,
            optimizers=self.optimizers,
            must_fit=must_fit,
        )

    def _fuse(self, config: Config) -> list[FusedLayer]:
        keep = self.dtype if self.plan.weights == DEQUANTIZED else None
        if self.plan.fused:
            layers = fuse_layers(self.model, keep_dequantized=keep, shards=self.shards)
            say(f"adapters: fused into {len(layers)} decoder layers")
            return layers
        if self.shards is not None:
            problem = "weights are shared out of fused decoder layers alone"
            raise ModelError(problem, fix="leave lora.dropout, dora and modules_to_save out, or set weights to auto")
        if config.training.fused_adapters:
            count = fuse_adapters(self.model, keep_dequantized=keep)
            reason = f"({reason_not_to_fuse(self.model)}){config.lora.left_to_peft}"
            say(f"adapters: {count} projections fused, layer by layer as they are {reason}")
        return []

    def _follow(self) -> None:
        """Make the model follow the plan."""
        try:
            if self.plan.embeddings == "host":
                move_embeddings_to_host(self.model)
        except HostMemoryError as error:
            say(f"embeddings stay on the device: {first_line(error)}")
            self.settled["embeddings"] = "device"
            self.plan = self._planned(_freed(self.training), must_fit=False)
        plan = self.plan
        if plan.checkpointed_layers and not plan.fused:
            checkpoint_whole_layers(self.model)
        store = HostStore(torch.device(self.device)) if plan.offloaded_layers and self.layers else None
        # The last layers come first in the backward pass: what they keep is gone before the others compute again, and
        # the first layers' inputs wait longest.
        for number, layer in enumerate(self.layers):
            layer.recompute = number < plan.checkpointed_layers
            layer.store = store if number < plan.offloaded_layers else None
            if plan.weights == AS_STORED:
                for group in layer.groups:
                    group.base.release()

    def _forget(self) -> None:
        """Release all that is left of a pass that will not be finished."""
        for parameter in self.model.parameters():
            parameter.grad = None
        self._release()

    def _release(self) -> None:
        """Give back what layers keep between passes."""
        for store in {layer.store for layer in self.layers if layer.store is not None}:
            store.forget()
        for layer in self.layers:
            layer.store = None
        # What is free lies in gaps between what the pass kept; given back, it can be had in one piece.
        release_memory()

    def _host_bytes(self) -> int:
        widest = max(self.plan.tokens_per_micro_batch, self.longest_row)
        return self.plan.offloaded_layers * widest * self.shape.hidden * self.shape.item


def _freed(training: TrainingSection) -> TrainingSection:
    """`training` with every choice that changes nothing but speed and memory left to the plan."""
    choices = ("tokens_per_micro_batch", "checkpointing", "embeddings", "weights")
    return training.model_copy(update=dict.fromkeys(choices, "auto"))


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training: its model, made ready as `prepared` says, its rows, and where it writes.

    `dtype` is the one that a step computes in. `origin` tells this training from any other, for the seals of its
    checkpoints; `resume_from` is the checkpoint that it continues.
    """

    prepared: PreparedStep
    tokenizer: Any
    train_rows: Sequence[EncodedRow]
    validation_rows: Sequence[EncodedRow]
    seed: int
    run: RunDir
    dtype: str
    origin: Mapping[str, str] = field(default_factory=dict)
    resume_from: Path | None = None

    @property
    def training(self) -> TrainingSection:
        """The section of the configuration that says how to train."""
        return self.prepared.training

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole training, unless early stopping ends it before."""
        return total_steps(self.training, len(self.train_rows))
