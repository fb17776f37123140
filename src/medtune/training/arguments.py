"""The trainer's arguments, as our configuration sets them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from trl import SFTConfig

from medtune.config.training import TrainingSection

if TYPE_CHECKING:
    from medtune.training.prepared_step import TrainingJob

VALIDATIONS_PER_RUN = 5


class OneDeviceConfig(SFTConfig):  # type: ignore[misc]
    """SFTConfig that never wraps the model in DataParallel: one process trains on one device, several through DDP."""

    @property
    def n_gpu(self) -> int:
        """One, however many GPUs are visible; TRL refuses more."""
        return min(1, int(super().n_gpu))


def build_arguments(job: TrainingJob, steps: int, **tracking: Any) -> OneDeviceConfig:
    """Arguments for `steps` optimiser steps of this job, computed as its plan says, and those that trackers read."""
    training, plan, device = job.training, job.prepared.plan, job.prepared.device
    return OneDeviceConfig(
        output_dir=str(job.run.checkpoints_dir),
        seed=job.seed,
        max_steps=steps,
        # The data loader yields whole optimiser steps (see AnswerTrainer), so nothing is left to accumulate.
        per_device_train_batch_size=training.effective_batch_rows,
        gradient_accumulation_steps=1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=round(training.warmup_ratio * steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=plan.optimizer,
        # Rows come encoded and cut; TRL's padding-free collator joins them, and nothing of its data preparation runs.
        packing=False,
        padding_free=True,
        max_length=None,
        bf16=job.dtype == "bfloat16",
        fp16=job.dtype == "float16",
        use_cpu=device == "cpu",
        logging_strategy="steps",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=[],  # trackers are ours to guard (see training/trackers)
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=device != "cpu",
        **tracking,
        **_validation(training, steps),
        # Fused layers compute again by themselves.
        **_checkpointing(plan.checkpointed_layers > 0 and not plan.fused),
    )


def _validation(training: TrainingSection, steps: int) -> dict[str, Any]:
    """When to validate, each time with a checkpoint, and what becomes of the best one."""
    every = min(training.checkpoint_steps or max(1, -(-steps // VALIDATIONS_PER_RUN)), steps)
    options: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        # Checkpoints are deleted once the next is sealed (see CheckedTrainer), which the trainer knows nothing of.
        "save_total_limit": None,
        # How long early stopping has been patient.
        "restore_callback_states_from_checkpoint": True,
        "load_best_model_at_end": training.keep == "best",
    }
    if training.keep == "best" or training.early_stopping_patience is not None:
        options |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    return options


def _checkpointing(enabled: bool) -> dict[str, Any]:
    word = _checkpointing_word()
    options = {f"{word}_checkpointing_kwargs": {"use_reentrant": False}} if enabled else {}
    return {f"{word}_checkpointing": enabled, **options}


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
