"""The whole job, stage by stage: data, baseline, training, tuned, comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medtune import provenance
from medtune.config import Config
from medtune.errors import RunDirError
from medtune.hardware import choose_device, rank, release_memory, world_size
from medtune.model.loaded import LoadedModel, load_model
from medtune.model.loading import DEMO_MODEL, prepare_for_training
from medtune.preflight import check_inputs, check_rows
from medtune.progress import say
from medtune.prompts import encode_for_training
from medtune.records import ComparisonRow, ModelName, Prediction, Score
from medtune.run_dir import STAGES, RunDir, StageName, pin_revision


def run(config: Config, path: Path, *, resume: bool = False) -> RunDir:
    """Every stage in order, each skipped when it is complete. Raises MedtuneError before any long work."""
    if world_size() > 1:
        raise RunDirError(
            "`medtune run` is one process; run its stages by themselves and start `medtune train RUN` alone with "
            "`accelerate launch -m medtune train RUN`"
        )
    run_dir = start_run(config, path, resume=resume)
    stages: dict[StageName, Callable[[], None]] = {
        "data": lambda: prepare_stage(run_dir),
        "baseline": lambda: evaluate_stage(run_dir, "baseline"),
        "train": lambda: train_stage(run_dir, resume=resume),
        "tuned": lambda: evaluate_stage(run_dir, "tuned"),
        "compare": lambda: compare_stage(run_dir),
    }
    for name in STAGES:
        stages[name]()
        if name == "data" and config.model.base != DEMO_MODEL:
            check_rows(config, run_dir)
    return run_dir


def start_run(config: Config, path: Path, *, resume: bool) -> RunDir:
    """Check what can be checked cheaply, then make or reopen the run directory."""
    RunDir(path).check(config, resume=resume)
    check_inputs(config)
    run_dir = RunDir.create(path, config, resume=resume)
    provenance.record_environment(run_dir)
    return run_dir


def prepare_stage(run_dir: RunDir) -> None:
    """Rows of the source as three splits."""
    from medtune.data.prepare import prepare_data

    if _skip(run_dir, "data"):
        return
    with provenance.stage(run_dir, "data"):
        prepared = prepare_data(run_dir.config())
        run_dir.write_split(prepared.split)
        run_dir.write_json(run_dir.data_report_file, prepared.report)
        run_dir.update_provenance(data=prepared.provenance)
        rows = prepared.report["rows"]
        say(f"rows: {rows['train']} train, {rows['validation']} validation, {rows['test']} test")


def evaluate_stage(run_dir: RunDir, which: ModelName) -> None:
    """Answers, reference losses and scores of the base model, or of the base with the trained adapter."""
    if _skip(run_dir, which):
        return
    run_dir.require("data", "medtune data prepare")
    config = run_dir.config()
    if which == "tuned" and config.model.adapter is None:
        run_dir.require("train", f"medtune train {run_dir.path}")
    with provenance.stage(run_dir, which) as record:
        predictions, precision = _predict(run_dir, which, config, record)
        run_dir.write_predictions(which, predictions)
        # The model is gone, but stands in reference cycles: BERTScore's encoder wants its memory.
        release_memory()
        run_dir.write_scores(which, _score(predictions, config, precision))


def _predict(run_dir: RunDir, which: ModelName, config: Config, record: dict[str, Any]) -> tuple[list[Prediction], str]:
    from medtune.data.splits import sample_rows
    from medtune.inference.predictions import predict
    from medtune.model.adapters import attach_adapter, resolve_adapter

    loaded = _load_model(run_dir, config, record, for_training=False)
    model = loaded.model
    if which == "tuned":
        trained = run_dir.is_complete("train")
        adapter = run_dir.adapter_dir if trained else resolve_adapter(str(config.model.adapter))
        model = attach_adapter(model, adapter, trainable=False)
    test = run_dir.read_split("test")
    chosen = {pair.id for pair in sample_rows(test, config.evaluation.max_examples, config.seed)}
    pairs = [pair for pair in test if pair.id in chosen]
    # In 16 bit the batch an answer is written in can decide a close call: both models get the same one.
    stages = run_dir.provenance().get("stages", {})
    sizes = [stages[name]["batch_size"] for name in ("baseline", "tuned") if name in stages and name != which]
    predictions, batch_size = predict(
        model,
        loaded.renderer,
        pairs,
        end_token_ids=loaded.end_token_ids,
        batch_size=sizes[0] if sizes else None,
        config=config,
    )
    record |= {"rows": len(predictions), "batch_size": batch_size}
    return predictions, f"model:{config.model.quantization}|dtype:{loaded.dtype}"


def _score(predictions: list[Prediction], config: Config, precision: str) -> dict[str, Score]:
    from medtune.evaluation.bertscore import resolve_encoder
    from medtune.evaluation.scores import score_predictions
    from medtune.hub import fetch_snapshot

    metrics = config.evaluation.metrics
    encoder = resolve_encoder(config.evaluation.bertscore_model, fetch_snapshot) if "bertscore_f1" in metrics else None
    caps = f"max_new_tokens:{config.generation.max_new_tokens}|decoding:{config.generation.decoding}"
    return score_predictions(
        predictions, metrics, encoder=encoder, device=choose_device().value, caps=caps, precision=precision
    )


def train_stage(run_dir: RunDir, *, resume: bool = False) -> None:
    """The adapter, trained on the train split and chosen by the validation split."""
    if _skip(run_dir, "train"):
        return
    run_dir.require("data", "medtune data prepare")
    config = run_dir.config()
    checkpoint = run_dir.last_checkpoint()
    if checkpoint is not None and not resume:
        raise RunDirError(
            f"{run_dir.path}: holds an unfinished training ({checkpoint.name}); add --resume to continue it, "
            f"or delete {run_dir.checkpoints_dir} to start over"
        )
    from medtune.data.splits import sample_rows
    from medtune.model.adapters import attach_adapter, attach_new_adapter, resolve_adapter
    from medtune.training.sft import result_record, train_adapter

    with provenance.stage(run_dir, "train") as record:
        loaded = _load_model(run_dir, config, record, for_training=True)
        sampled = sample_rows(run_dir.read_split("validation"), config.training.validation_limit, config.seed)
        train, validation = (
            encode_for_training(
                loaded.renderer, pairs, max_length=config.training.max_length, overlong=config.training.overlong
            )
            for pairs in (run_dir.read_split("train"), sampled)
        )
        say(
            f"training rows: {len(train.rows)}; over {config.training.max_length} tokens: "
            f"{train.cut} cut, {train.dropped} dropped"
        )
        base = prepare_for_training(
            loaded.model, config.model.kbit_preparation, gradient_checkpointing=config.training.gradient_checkpointing
        )
        if config.model.adapter is None:
            model = attach_new_adapter(base, config.lora, config.seed)
        else:
            model = attach_adapter(base, resolve_adapter(config.model.adapter), trainable=True)
        model, result = train_adapter(
            model,
            loaded.renderer.tokenizer,
            train.rows,
            validation.rows,
            config=config,
            run=run_dir,
            dtype=loaded.dtype,
            resume_from=checkpoint,
        )
        if rank() == 0:
            _save_adapter(run_dir, model, loaded, config)
        record["training"] = result_record(result)
        record["rows"] = {
            "train": len(train.rows),
            "cut": train.cut,
            "dropped": train.dropped,
            "tokens_lost": train.tokens_lost,
        }


def _save_adapter(run_dir: RunDir, model: Any, loaded: LoadedModel, config: Config) -> None:
    from medtune.hub import ADAPTER_SETTINGS
    from medtune.model.adapters import adapter_settings

    with run_dir.replacing_adapter() as folder:
        model.peft_config["default"].base_model_name_or_path = config.model.base
        model.peft_config["default"].revision = loaded.revision
        model.save_pretrained(folder)
        loaded.renderer.tokenizer.save_pretrained(folder)
        run_dir.write_json(folder / ADAPTER_SETTINGS, adapter_settings(config))


def compare_stage(run_dir: RunDir) -> None:
    """Baseline and tuned side by side, as JSON and Markdown."""
    from medtune.evaluation.comparison import compare_scores, require_same_rows
    from medtune.evaluation.reading import read_comparison
    from medtune.evaluation.tables import comparison_markdown

    if _skip(run_dir, "compare"):
        return
    scores = {which: run_dir.read_scores(which) for which in ("baseline", "tuned")}
    with provenance.stage(run_dir, "compare"):
        before, after = run_dir.read_predictions("baseline"), run_dir.read_predictions("tuned")
        require_same_rows(before, after)
        rows = compare_scores(scores["baseline"], scores["tuned"])
        sentences = read_comparison(before, after, rows)
        title = f"# {run_dir.config().model.base} before and after tuning\n\n"
        run_dir.write_comparison(rows, title + comparison_markdown(rows, sentences))


def comparison(run_dir: RunDir) -> tuple[list[ComparisonRow], list[str]]:
    """Rows of a finished comparison and their reading in plain sentences."""
    import json

    from medtune.evaluation.reading import read_comparison

    run_dir.require("compare", f"medtune compare {run_dir.path}")
    rows = [ComparisonRow(**row) for row in json.loads(run_dir.comparison_file.read_text(encoding="utf-8"))]
    return rows, read_comparison(run_dir.read_predictions("baseline"), run_dir.read_predictions("tuned"), rows)


def _load_model(run_dir: RunDir, config: Config, record: dict[str, Any], *, for_training: bool) -> LoadedModel:
    loaded = load_model(pin_revision(run_dir, config), for_training=for_training)
    if rank() == 0:
        run_dir.update_provenance(model={"base": config.model.base, "revision": loaded.revision})
    record["choices"] = {name: {"value": c.value, "reason": c.reason} for name, c in loaded.choices.items()}
    return loaded


def _skip(run_dir: RunDir, name: StageName) -> bool:
    if run_dir.is_complete(name):
        say(f"── {name}: complete, skipped")
        return True
    return False
