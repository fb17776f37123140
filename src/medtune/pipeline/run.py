"""The whole job, stage by stage: data, baseline, controls, training, tuned, comparison, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medtune.config.schema import Config
from medtune.data.training_rows import encode_for_training, require_sound_rows
from medtune.errors import RunDirError
from medtune.model.loaded import LoadedModel
from medtune.model.loading import DEMO_MODEL, prepare_for_training
from medtune.pipeline.checks import check_inputs, check_rows
from medtune.pipeline.evaluate import compare_stage, controls_stage, evaluate_stage, load_run_model, skip
from medtune.pipeline.report import report_stage
from medtune.run_dir import provenance
from medtune.run_dir.directory import STAGES, RunDir, StageName
from medtune.runtime import interruption
from medtune.runtime.distributed import is_main
from medtune.runtime.progress import console, say
from medtune.training.checkpoints.remote import check_repository, newest_checkpoint
from medtune.training.checkpoints.sealing import last_checkpoint, require_origin, training_origin


def run(config: Config, path: Path, *, resume: bool = False) -> RunDir:
    """Every stage in order, each skipped when it is complete. Raises MedtuneError before any long work."""
    run_dir = start_run(config, path, resume=resume)
    stages: dict[StageName, Callable[[], None]] = {
        "data": lambda: prepare_stage(run_dir),
        "baseline": lambda: evaluate_stage(run_dir, "baseline"),
        "controls": lambda: controls_stage(run_dir),
        "train": lambda: train_stage(run_dir, resume=resume),
        "tuned": lambda: evaluate_stage(run_dir, "tuned"),
        "compare": lambda: compare_stage(run_dir),
        "report": lambda: report_stage(run_dir),
    }
    for name in STAGES:
        stages[name]()
        interruption.raise_if_requested()
        if name == "data" and config.model.base != DEMO_MODEL:
            check_rows(config, run_dir)
    return run_dir


def start_run(config: Config, path: Path, *, resume: bool) -> RunDir:
    """Check what can be checked cheaply, then make or reopen the run directory."""
    RunDir(path).check(config, resume=resume)
    check_inputs(config)
    check_repository(RunDir(path), config, resume=resume)
    run_dir = RunDir.create(path, config, resume=resume)
    provenance.record_environment(run_dir)
    return run_dir


def prepare_stage(run_dir: RunDir) -> None:
    """Rows of the source as three splits, and the audit of both."""
    from medtune.data.audit_tables import print_leakage
    from medtune.data.prepare import prepare_data
    from medtune.data.token_lengths import audit_prepared
    from medtune.model.loaded import renderer_of

    if skip(run_dir, "data"):
        return
    with provenance.stage(run_dir, "data"):
        config = run_dir.config()
        prepared = prepare_data(config)
        audit = audit_prepared(prepared, config, renderer_of(config))
        run_dir.write_split(prepared.split)
        run_dir.write_dropped(prepared.dropped)
        run_dir.write_json(run_dir.data_report_file, prepared.report)
        run_dir.write_json(run_dir.audit_file, audit)
        run_dir.update_provenance(data=prepared.provenance)
        rows = prepared.report["rows"]
        say(f"rows: {rows['train']} train, {rows['validation']} validation, {rows['test']} test")
        print_leakage(audit, console())


def train_stage(run_dir: RunDir, *, resume: bool = False) -> None:
    """The adapter, trained on the train split and chosen by the validation split."""
    run_dir.lock()
    if skip(run_dir, "train"):
        return
    run_dir.require("data", "medtune data prepare")
    config = run_dir.config()
    checkpoint = last_checkpoint(run_dir)
    if checkpoint is not None and not resume:
        raise RunDirError(
            f"{run_dir.path}: holds an unfinished training ({checkpoint.name}); add --resume to continue it, "
            f"or delete {run_dir.checkpoints_dir} to start over"
        )
    check_repository(run_dir, config, resume=resume, started=True)
    from medtune.data.splits import sample_rows
    from medtune.model.adapters import attach_adapter, attach_new_adapter, resolve_adapter
    from medtune.training.plan.kept_plan import restore_plan
    from medtune.training.preparation import PreparedStep
    from medtune.training.sft import result_record, train_adapter

    with provenance.stage(run_dir, "train") as record:
        loaded = load_run_model(run_dir, config, record, for_training=True)
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
        if is_main():
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
