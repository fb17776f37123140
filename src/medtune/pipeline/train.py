"""The train stage: the adapter, trained on the train split and chosen by the validation split."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from medtune.config.schema import Config
from medtune.data.training_rows import encode_for_training, require_sound_rows
from medtune.errors import Option, RunDirError
from medtune.model.loaded import LoadedModel
from medtune.model.loading import prepare_for_training
from medtune.pipeline.run_model import load_run_model
from medtune.run_dir.directory import RunDir
from medtune.runtime.hardware import rank
from medtune.runtime.progress import say
from medtune.training.checkpoints.remote import check_repository, newest_checkpoint
from medtune.training.checkpoints.sealing import last_checkpoint, require_origin, training_origin


def train_stage(run_dir: RunDir, record: dict[str, Any], *, resume: bool = False) -> None:
    """The adapter, trained on the train split and chosen by the validation split."""
    config = run_dir.config
    checkpoint = last_checkpoint(run_dir)
    if checkpoint is not None and not resume:
        raise RunDirError(
            run_dir.path,
            f"holds an unfinished training ({checkpoint.name})",
            ("add ", Option("resume"), f" to continue it, or delete {run_dir.checkpoints_dir} to start over"),
        )
    check_repository(run_dir, config, resume=resume, started=True)
    from medtune.data.splits import sample_rows
    from medtune.model.adapters import attach_adapter, attach_new_adapter, resolve_adapter
    from medtune.training.plan.kept_plan import restore_plan
    from medtune.training.preparation import PreparedStep
    from medtune.training.sft import result_record, train_adapter

    loaded = load_run_model(run_dir, record, for_training=True)
    sampled = sample_rows(run_dir.read_split("validation"), config.training.validation_limit, config.seed)
    train, validation = (
        encode_for_training(
            loaded.renderer, pairs, max_length=config.training.max_length, overlong=config.training.overlong
        )
        for pairs in (run_dir.read_split("train"), sampled)
    )
    require_sound_rows([*train.rows, *validation.rows], loaded.renderer)
    say(
        f"training rows: {len(train.rows)}; over {config.training.max_length} tokens: "
        f"{train.cut} cut, {train.dropped} dropped"
    )
    origin = training_origin(config, loaded.identity, train.rows, validation.rows, dtype=loaded.dtype)
    if resume:
        checkpoint = newest_checkpoint(run_dir, config, origin, checkpoint)
    if checkpoint is not None:
        require_origin(checkpoint, origin)
    base = prepare_for_training(loaded.model, config.model.kbit_preparation)
    if config.model.adapter is None:
        model = attach_new_adapter(base, config.lora, config.seed)
    else:
        model = attach_adapter(base, resolve_adapter(config.model.adapter), trainable=True)
    # A training that goes on does so by its plan: another machine, or less free memory, would make another one.
    kept = restore_plan(run_dir, loaded.device) if checkpoint is not None else None
    prepared = PreparedStep(model, train.rows, config, device=loaded.device, dtype=loaded.dtype, plan=kept)
    model, result = train_adapter(
        model,
        loaded.renderer.tokenizer,
        train.rows,
        validation.rows,
        config=config,
        run=run_dir,
        dtype=loaded.dtype,
        prepared=prepared,
        origin=origin,
        resume_from=checkpoint,
    )
    if rank() == 0:
        _save_adapter(run_dir, model, loaded, config)
    record["plan"] = asdict(prepared.plan)
    record["training"] = result_record(result)
    record["rows"] = {
        "train": len(train.rows),
        "cut": train.cut,
        "dropped": train.dropped,
        "tokens_lost": train.tokens_lost,
    }


def _save_adapter(run_dir: RunDir, model: Any, loaded: LoadedModel, config: Config) -> None:
    from medtune.model.adapters import adapter_settings
    from medtune.storage.hub import ADAPTER_SETTINGS

    with run_dir.replacing_adapter() as folder:
        model.peft_config["default"].base_model_name_or_path = config.model.base
        model.peft_config["default"].revision = loaded.revision
        model.save_pretrained(folder)
        loaded.renderer.tokenizer.save_pretrained(folder)
        run_dir.write_json(folder / ADAPTER_SETTINGS, adapter_settings(config))
