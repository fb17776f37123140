"""The train stage: the adapter, trained on the train split and chosen by the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.data.splits import sample_rows
from medtune.data.training_rows import EncodedRows, encode_for_training, require_sound_rows
from medtune.errors import Option, RunDirError
from medtune.model.adapters import adapter_settings, attach_adapter, attach_new_adapter, resolve_adapter, say_other_base
from medtune.model.first_weights import first_weights, save_adapter
from medtune.model.loaded import LoadedModel
from medtune.model.loading import prepare_for_training, resolve_base
from medtune.pipeline.evaluate import load_run_model, require_same_prompts
from medtune.records import QAPair
from medtune.run_dir.copies import copy_to_other_machines
from medtune.run_dir.directory import RunDir
from medtune.runtime.distributed import from_main
from medtune.runtime.launch import is_main
from medtune.runtime.progress import say
from medtune.runtime.tensors import open_group
from medtune.storage.hub import ADAPTER_SETTINGS
from medtune.storage.writing import replacing_folder
from medtune.training.checkpoints.remote import check_repository, newest_checkpoint
from medtune.training.checkpoints.sealing import PLAN_NAME, last_checkpoint, require_origin, training_origin

if TYPE_CHECKING:
    from medtune.training.prepared_step import TrainingJob


def train_stage(run_dir: RunDir, record: dict[str, Any], *, resume: bool = False) -> None:
    """Train on the train split, keep the adapter that the validation split chooses, and save it."""
    config = run_dir.config
    from_main(lambda: _check_unfinished(run_dir, resume=resume))
    from medtune.training.sft import train_adapter

    open_group()
    loaded = load_run_model(run_dir, record, for_training=True)
    require_same_prompts(run_dir, "train", record, loaded.renderer)
    train, validation = _encode_rows(run_dir, loaded)
    origin = training_origin(config, loaded.identity, train.rows, validation.rows, dtype=loaded.dtype)
    checkpoint = _checkpoint(run_dir, origin) if resume else None
    job = _job(run_dir, loaded, train, validation, origin, checkpoint)
    start = first_weights(job.prepared.model, config.lora) if config.model.adapter is None else None
    model, result = train_adapter(job)
    if is_main():
        _save_adapter(run_dir, model, loaded, start)
    record["plan"] = asdict(job.prepared.plan)
    record["training"] = asdict(result)
    record["rows"] = {
        "train": len(train.rows),
        "cut": train.cut,
        "dropped": train.dropped,
        "tokens_lost": train.tokens_lost,
        **({"shortened": train.shortened} if train.shortened else {}),
        **({"taken_apart": train.taken_apart} if train.taken_apart else {}),
    }


def _check_unfinished(run_dir: RunDir, *, resume: bool) -> None:
    """Raises RunDirError for a checkpoint that is here and that nobody asked to `resume`."""
    if not resume and (checkpoint := last_checkpoint(run_dir)) is not None:
        fix = ("add ", Option("resume"), f" to continue it, or delete {run_dir.checkpoints_dir} to start over")
        raise RunDirError(run_dir.path, f"holds an unfinished training ({checkpoint.name})", fix)
    check_repository(run_dir, run_dir.config, resume=resume, started=True)


def _checkpoint(run_dir: RunDir, origin: dict[str, str]) -> Path | None:
    """The newest checkpoint of this training, on every machine; None if there is none."""

    def newest() -> str | None:
        checkpoint = newest_checkpoint(run_dir, run_dir.config, origin, last_checkpoint(run_dir))
        if checkpoint is not None:
            require_origin(checkpoint, origin)
        return None if checkpoint is None else checkpoint.name

    if (name := from_main(newest)) is None:
        return None
    folder = run_dir.checkpoints_dir / name
    kept = [run_dir.history_file, run_dir.checkpoints_dir / PLAN_NAME]
    copy_to_other_machines(run_dir, [*kept, *(folder.iterdir() if is_main() else ())])
    return folder


def _encode_rows(run_dir: RunDir, loaded: LoadedModel) -> tuple[EncodedRows, EncodedRows]:
    """Training and validation rows in tokens. Raises MedtuneError for rows that training cannot take."""
    config, training = run_dir.config, run_dir.config.training

    def encode(pairs: Sequence[QAPair]) -> EncodedRows:
        return encode_for_training(
            loaded.renderer,
            pairs,
            max_length=training.max_length,
            overlong=training.overlong,
            loss_on=training.loss_on,
        )

    sampled = sample_rows(run_dir.read_split("validation"), training.validation_limit, config.seed)
    train, validation = encode(run_dir.read_split("train")), encode(sampled)
    require_sound_rows([*train.rows, *validation.rows], loaded.renderer)
    turns = f", {train.shortened} conversations without their oldest turns" if train.shortened else ""
    say(
        f"training rows: {len(train.rows)}; over {training.max_length} tokens: {train.cut} cut, {train.dropped} dropped"
        f"{turns}"
    )
    if train.taken_apart:
        say(
            f"{train.taken_apart} conversations have a row for each answer: the chat template writes earlier turns "
            f"otherwise once another question follows ({Option('set', 'training.loss_on=last')} learns the last alone)"
        )
    return train, validation


def _job(
    run_dir: RunDir,
    loaded: LoadedModel,
    train: EncodedRows,
    validation: EncodedRows,
    origin: dict[str, str],
    checkpoint: Path | None,
) -> TrainingJob:
    """The model with an adapter to train and a plan for its steps, and all else that training reads."""
    from medtune.training.checkpoints.contents import restore_plan
    from medtune.training.prepared_step import PreparedStep, TrainingJob

    config, device, dtype = run_dir.config, loaded.device, loaded.dtype
    base = prepare_for_training(loaded.model, config.model.kbit_preparation)
    if config.model.adapter is None:
        files = resolve_base(config.model.base, loaded.revision).path if config.lora.init == "loftq" else None
        model = attach_new_adapter(base, config.lora, config.seed, base=files)
    else:
        adapter = resolve_adapter(config.model.adapter)
        say_other_base(adapter, config.model.base)
        model = attach_adapter(base, adapter, trainable=True)
    # A resumed training keeps its plan: another machine, or less free memory, would lead to another one.
    kept = restore_plan(run_dir, device) if checkpoint is not None else None
    return TrainingJob(
        prepared=PreparedStep(model, train.rows, config, device=device, dtype=dtype, plan=kept, shards=loaded.shards),
        tokenizer=loaded.renderer.tokenizer,
        train_rows=train.rows,
        validation_rows=validation.rows,
        seed=config.seed,
        run=run_dir,
        dtype=dtype,
        origin=origin,
        resume_from=checkpoint,
    )


def _save_adapter(run_dir: RunDir, model: Any, loaded: LoadedModel, start: dict[str, Any] | None) -> None:
    with replacing_folder(run_dir.adapter_dir) as folder:
        model.peft_config["default"].base_model_name_or_path = run_dir.config.model.base
        model.peft_config["default"].revision = loaded.revision
        save_adapter(model, folder, start)
        loaded.renderer.tokenizer.save_pretrained(folder)
        run_dir.write_json(folder / ADAPTER_SETTINGS, adapter_settings(run_dir.pinned_config))
