"""The trainer's arguments, as our configuration sets them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from trl import SFTConfig

from medtune.config.schema import Config
from medtune.run_dir.directory import RunDir
from medtune.training.batching import steps_per_epoch
from medtune.training.plan.peaks import TrainingPlan

VALIDATIONS_PER_RUN = 5


class OneDeviceConfig(SFTConfig):  # type: ignore[misc]
    """SFTConfig that never wraps the model in DataParallel: one process trains on one device, several through DDP."""

    @property
    def n_gpu(self) -> int:
        """One, however many GPUs are visible; TRL refuses more."""
        return min(1, int(super().n_gpu))


def total_steps(config: Config, rows: int) -> int:
    """Optimiser steps of the whole training."""
    training = config.training
    per_epoch = steps_per_epoch(rows, training.effective_batch_rows)
    by_epochs = max(1, round(training.epochs * per_epoch))
    return by_epochs if training.max_steps is None else training.max_steps


def build_arguments(
    config: Config, run: RunDir, plan: TrainingPlan, *, steps: int, device: str, dtype: str
) -> OneDeviceConfig:
    """Arguments for `steps` optimiser steps on `device` with autocast to `dtype`, as `plan` has them computed."""
    training = config.training
    save_steps = min(training.checkpoint_steps or max(1, -(-steps // VALIDATIONS_PER_RUN)), steps)
    warmup = round(training.warmup_ratio * steps)
    best: dict[str, Any] = {}
    if training.keep == "best" or training.early_stopping_patience is not None:
        best = {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    return OneDeviceConfig(
        output_dir=str(run.checkpoints_dir),
        seed=config.seed,
        max_steps=steps,
        # The data loader yields whole optimiser steps (see AnswerTrainer), so nothing is left to accumulate.
        per_device_train_batch_size=training.effective_batch_rows,
        gradient_accumulation_steps=1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=plan.optimizer,
        # Rows come encoded and cut; TRL's padding-free collator joins them, and nothing of its data preparation runs.
        packing=False,
        padding_free=True,
        max_length=None,
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16",
        use_cpu=device == "cpu",
        eval_strategy="steps",
        eval_steps=save_steps,
        save_strategy="steps",
        save_steps=save_steps,
        # Checkpoints are deleted once the next is sealed (see AnswerTrainer), which the trainer knows nothing of.
        save_total_limit=None,
        # How long early stopping has been patient.
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=training.keep == "best",
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[name for name in training.report_to if name != "tensorboard"],
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        # Fused layers compute again by themselves.
        **_checkpointing(plan.checkpointed_layers > 0 and not plan.fused),
        **best,
    )


def _checkpointing(enabled: bool) -> dict[str, Any]:
    word = _checkpointing_word()
    options: dict[str, Any] = {f"{word}_checkpointing": enabled}
    if enabled:
        options[f"{word}_checkpointing_kwargs"] = {"use_reentrant": False}
    return options


def checkpoint_whole_layers(model: Any) -> None:
    """Have transformers' own layers of a PeftModel compute again in the backward pass, as the arguments would."""
    word = _checkpointing_word()
    enable = getattr(model.get_base_model(), f"{word}_checkpointing_enable")
    enable(**{f"{word}_checkpointing_kwargs": {"use_reentrant": False}})


def _checkpointing_word() -> str:
    # transformers 5.23 renamed these and warns of the old names; 5.17 knows only those. Drop when 5.23 is the oldest
    # supported release.
    names = {field.name for field in fields(SFTConfig)}
    return "activation" if "activation_checkpointing" in names else "gradient"


def optimizer_names(wanted: str, device: str) -> tuple[str, ...]:
    """What `auto` may become on `device`, the best first: one fused update, or pages that make room."""
    if wanted != "auto":
        return (wanted,)
    return ("adamw_torch_fused",) if device == "cpu" else ("adamw_torch_fused", "paged_adamw_8bit")
