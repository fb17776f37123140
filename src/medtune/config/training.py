"""The sections of the configuration that say what is trained and how."""

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from medtune.config.section import Fraction, Names, PositiveInt, Section

_Rank = Annotated[int, Field(ge=1, le=1024)]
_Alpha = Annotated[float, Field(gt=0)]
ALL_LINEAR = "all-linear"
TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]


# One problem is reported of a wrong value, and not one for each type that it might have had.
ListOrText = Annotated[
    Annotated[Names, Field(min_length=1), Tag("list")] | Annotated[str, Tag("str")],
    Discriminator(lambda value: "str" if isinstance(value, str) else "list"),
]


class LoraSection(Section):
    """The adapter."""

    rank: _Rank = 16
    """Rank of the two adapter matrices."""
    alpha: _Alpha = 16
    """Scale: the update is multiplied by alpha / rank, or with `rslora` by alpha / √rank."""
    dropout: Fraction = 0.0
    """Dropout on the adapter's input. Anything but 0 rules out fused kernels."""
    targets: ListOrText = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Names of the linear layers that get an adapter; `all-linear` for all but the head; or a regular expression that
    a layer's whole name has to match, as in PEFT."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, strict=False, min_length=1)
    """Numbers of the decoder layers that get an adapter, from 0; none for all. PEFT's `layers_to_transform`."""
    rank_pattern: dict[str, _Rank] = {}
    """Ranks of single layers by their names or regular expressions, as in PEFT: `{down_proj: 32}`."""
    alpha_pattern: dict[str, _Alpha] = {}
    """Scales of single layers, likewise."""
    rslora: bool = False
    """Scale by alpha / √rank (Kalajdzievski 2023), which keeps updates of high ranks from shrinking."""
    dora: bool = False
    """Learn magnitude and direction of weights apart (Liu et al. 2024), by PEFT's own modules: slower, more memory."""
    init: Literal["default", "gaussian", "pissa", "pissa_niter_4", "pissa_niter_16", "loftq"] = "default"
    """First weights, as PEFT's `init_lora_weights`. `default` and `gaussian` start from the base as it is; `pissa`
    takes the largest singular directions out of the base, which must not be quantised (`niter`: approximately); `loftq`
    makes up for what NF4 loses of the base."""
    modules_to_save: Names = ()
    """Modules that are trained whole and saved with the adapter, such as `embed_tokens` and `lm_head`: 16 bytes a
    parameter, at the adapter's learning rate."""

    @property
    def left_to_peft(self) -> str:
        """Which settings leave adapters, or more, to PEFT's own modules, as the end of a sentence; or nothing."""
        found = {"dora": self.dora, "dropout": self.dropout, "modules_to_save": self.modules_to_save}
        names = [f"lora.{name}" for name, is_set in found.items() if is_set]
        return f"; the others by PEFT's own modules, for {' and '.join(names)}" if names else ""

    @field_validator("targets", "rank_pattern", "alpha_pattern")
    @classmethod
    def _can_be_compiled(cls, value: Any) -> Any:
        if isinstance(value, str) and value.isidentifier():  # a single name, which matches no whole one
            raise ValueError("must be a list")
        for pattern in (value,) if isinstance(value, str) else value if isinstance(value, dict) else ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
        return value

    @model_validator(mode="after")
    def _go_together(self) -> "LoraSection":
        others = ("dora", "rank_pattern", "alpha_pattern", "modules_to_save")
        if self.init.startswith("pissa") and (found := [name for name in others if getattr(self, name)]):
            raise ValueError(
                f"init {self.init} does not go with {' and '.join(found)}: it changes the base's weights, and what is "
                "saved for the untouched base is the difference of two plain adapters of one rank and scale"
            )
        if self.init == "loftq" and self.dora:
            raise ValueError(
                "init loftq does not go with dora: DoRA's magnitudes are those of the base before LoftQ's correction"
            )
        if both := sorted({name for name in self.modules_to_save if name in self.targets and self.targets != name}):
            raise ValueError(f"{', '.join(both)} cannot be in targets and in modules_to_save: one or the other")
        return self


class TrainingSection(Section):
    """Optimisation."""

    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Passes over the training rows."""
    max_steps: PositiveInt | None = None
    """Stop after this many optimiser steps, whatever `epochs` says."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial"] = "cosine"
    """Learning-rate schedule, by its name in transformers."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps over which the learning rate rises to its peak."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Weight decay of the adapter."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    max_gradient_spike: Annotated[float, Field(gt=1)] | None = 100.0
    """Training stops at a gradient whose norm is more than this many times the median of the steps before; none
    never stops."""
    optimizer: Annotated[str, Field(min_length=1)] = "auto"
    """Any optimiser name of transformers; `auto` is `adamw_torch_fused`, or `paged_adamw_8bit` on a GPU where the state
    of 8 bytes a parameter does not fit."""
    effective_batch_rows: PositiveInt = 16
    """Rows of one optimiser step, over all devices."""
    tokens_per_micro_batch: Annotated[int, Field(ge=16)] | Literal["auto"] = "auto"
    """Token budget of one pass, in training and in scoring; a longer row gets a pass of its own, and a pass is filled
    up to a multiple of 64. It bounds memory: the rows of a step and the gradient stay the same. `auto` takes what is
    fastest in the memory that is there."""
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest row in tokens, prompt included."""
    overlong: Literal["cut", "drop"] = "cut"
    """Rows over `max_length`: `cut` shortens the answer at a sentence end and keeps the end token; `drop` leaves the
    row out. Both are counted."""
    loss_on: Literal["all", "last"] = "all"
    """Answers of a conversation that are learned: `all`, as each of them is one that the model should have given, or
    the `last` alone, which is the one that is evaluated. Rows of one question and one answer are the same in both."""
    checkpointing: PositiveInt | Literal["auto", "none", "all", "offload"] = "auto"
    """Layers whose activations are computed again in the backward pass: none, all, or a number of them; `offload`
    is all, with their inputs in host memory. `auto` takes what is fastest in the memory that is there."""
    embeddings: Literal["auto", "device", "host"] = "auto"
    """Where input embeddings sit in training: `host` is the host's memory, 1 GiB less on the GPU for LLaMA-3-8B. Beside
    weights that processes share out, `auto` is `host`."""
    memory_gib: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Peak of GPU memory, in GiB, that the automatic choices keep to; none takes what is free."""
    host_memory_gib: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Host memory, in GiB, that waiting inputs of layers may take in training; none takes 60 % of what is free."""
    fused_adapters: bool = True
    """Compute each projection and its adapter as one operation; the mathematics is PEFT's. Needs `lora.dropout: 0`."""
    weights: Literal["auto", "nf4", "dequantized", "sharded"] = "auto"
    """4-bit base weights in training: `nf4` dequantises them in every step, `dequantized` does it once and keeps them
    in the compute dtype (the same numbers, four times the memory). `auto` takes the faster of these in the memory that
    is there. With `sharded` each of several processes holds a part of every layer's `nf4` weights, for answers as well:
    for models larger than a GPU, where `auto` chooses it. Without `fused_adapters` it is always `nf4`."""
    checkpoint_steps: PositiveInt | None = None
    """Validate and save a checkpoint every so many steps; none does both about five times a run."""
    validation_limit: PositiveInt | None = 256
    """Measure the validation loss on a seeded random sample of this many validation rows; none takes them all."""
    keep_checkpoints: PositiveInt = 2
    """How many checkpoints stay on disk; the newest and the best always do, an older one beside its own best alone."""
    push_checkpoints_to: str | None = None
    """Keep the newest checkpoint in this private Hub repository, `owner/name`, from which `--resume` continues on a new
    machine. It is made if it is not there; a public one is refused. None pushes nothing."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the adapter: lowest validation loss, or the last step's."""
    early_stopping_patience: PositiveInt | None = None
    """Stop after this many validations without a better loss; none never stops early."""
    report_to: Annotated[tuple[TrackerName, ...], Field(strict=False)] = ()
    """Trackers, by name; each needs the extra of its name installed (see docs/tracking.md)."""

    @field_validator("push_checkpoints_to")
    @classmethod
    def _name_a_repository(cls, name: str | None) -> str | None:
        if name is not None:
            from huggingface_hub.errors import HFValidationError
            from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

            try:
                validate_repo_id(name if "/" in name else f"{name}/")
            except HFValidationError:
                raise ValueError("must be a Hub repository of the form owner/name") from None
        return name
