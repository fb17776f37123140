"""The stages that measure: answers to the test rows, reference losses and scores, of the models and of the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, get_args

from medtune.data.prompts import PromptRenderer
from medtune.data.splits import sample_rows
from medtune.errors import Option, RunDirError
from medtune.evaluation import control_answers
from medtune.evaluation.encoder import resolve_encoder
from medtune.evaluation.measurement import TextSettings, measure_rows, score_rows
from medtune.evaluation.metrics import metric_named, needs_encoder
from medtune.evaluation.result_files import write_system
from medtune.evaluation.significance import Subsamples
from medtune.evaluation.text_warnings import text_warnings
from medtune.model.adapters import adapter_fingerprint, attach_adapter, resolve_adapter
from medtune.model.loaded import LoadedModel, load_model, renderer_of
from medtune.model.packing import prompts_checksum
from medtune.records import ModelName, Prediction, QAPair, Score, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import StageName
from medtune.run_dir.partial_results import PartialResults
from medtune.runtime.distributed import is_main
from medtune.runtime.hardware import choose_device, release_memory
from medtune.runtime.progress import say
from medtune.storage.hub import fetch_snapshot

if TYPE_CHECKING:
    from medtune.inference.predictions import Predicted


def evaluate_stage(run_dir: RunDir, record: dict[str, Any], which: ModelName) -> None:
    """Answers, reference losses and scores of the base model, or of the base with the trained adapter."""
    predictions, precision = _predict(run_dir, which, record)
    # The model is gone, but reference cycles still hold it: BERTScore's encoder wants its memory.
    release_memory()
    _measure(run_dir, record, {which: predictions}, precision)
    record["precision"] = precision


def load_run_model(run_dir: RunDir, record: dict[str, Any], *, for_training: bool) -> LoadedModel:
    """The base model at the commit that the run's first stage found; `record` gets the choices made for it.

    Raises ModelError, and RunDirError if the model is not the one that earlier stages had.
    """
    loaded = load_model(run_dir.pinned_config, for_training=for_training)
    run_dir.require_same_base(loaded.identity)
    record["base_identity"] = loaded.identity
    if is_main():
        run_dir.update_provenance(model={"base": run_dir.config.model.base, "revision": loaded.revision})
    record["choices"] = {name: asdict(choice) for name, choice in loaded.choices.items()}
    return loaded


def _measure(
    run_dir: RunDir, record: dict[str, Any], systems: Mapping[SystemName, Sequence[Prediction]], precision: str
) -> None:
    """Score the predictions of each system, and write them with their statistics and scores.

    `record` gets the counts of text that is not the answer, where there is any.
    """
    config = run_dir.config
    metrics = config.evaluation.metrics
    encoder = resolve_encoder(config.evaluation.bertscore_model, fetch_snapshot) if needs_encoder(metrics) else None
    caps = f"max_new_tokens:{config.generation.max_new_tokens}|decoding:{config.generation.decoding}"
    texts = TextSettings.of(config.evaluation)
    scores: dict[str, dict[str, Score]] = {}
    for name, predictions in systems.items():
        # What no model wrote has no likelihood of the references.
        written = all(row.reference_nll is not None for row in predictions)
        possible = [metric for metric in metrics if written or metric_named(metric).reads_answers]
        measured = measure_rows(
            predictions,
            possible,
            encoder=encoder,
            device=choose_device().value,
            caps=caps,
            precision=precision,
            texts=texts,
        )
        groups = [row.group for row in predictions]
        subsamples = Subsamples.draw(groups, splits=config.evaluation.resamples, seed=config.seed)
        scores[name] = score_rows(measured, subsamples)
        write_system(run_dir, name, predictions, measured, scores[name])
        if not_answer := next((rows.details["not_answer"] for rows in measured if "not_answer" in rows.details), None):
            record.setdefault("not_answer", {})[name] = not_answer
    for warning in text_warnings(scores):
        say(warning)


def _rows_to_test(run_dir: RunDir) -> list[QAPair]:
    """The test rows that are scored: all of them, or the sample of `evaluation.max_examples`, in their order."""
    config, test = run_dir.config, run_dir.read_split("test")
    if not test:  # which the data stage never leaves
        fix = ("restore it, or start another ", Option("run_dir"))
        raise RunDirError(run_dir.split_file("test"), "damaged, no rows", fix)
    chosen = {pair.id for pair in sample_rows(test, config.evaluation.max_examples, config.seed)}
    return [pair for pair in test if pair.id in chosen]


def _require_same_prompts(run_dir: RunDir, stage: StageName, record: dict[str, Any], renderer: PromptRenderer) -> None:
    """Record a checksum of the prompts of the test rows. Raises RunDirError if another stage had other prompts."""
    checksum = prompts_checksum(renderer.prompts([pair.question for pair in _rows_to_test(run_dir)]))
    record["prompts_sha256"] = checksum
    stages: tuple[StageName, ...] = ("baseline", "controls", "tuned")
    for other in stages:
        known = run_dir.stage_records.get(other, {}).get("prompts_sha256", checksum)
        if other != stage and known != checksum and run_dir.is_complete(other):
            raise RunDirError(
                run_dir.path,
                f"the prompts of the test rows are not those of the {other} stage: the tokenizer or chat template of "
                f"{run_dir.config.model.base} has changed, or the template prints a date or anything else that changes",
                ("restore its files, or start a new run in another ", Option("run_dir")),
            )


def _record_predicted(record: dict[str, Any], predicted: Predicted) -> None:
    """Record how answers were made: by what weights, how many at once, how often memory ran out."""
    record["choices"]["weights"] = asdict(predicted.weights)
    record |= {"batch_size": predicted.batch_size, "times_out_of_memory": predicted.times_out_of_memory}


def _predict(run_dir: RunDir, which: ModelName, record: dict[str, Any]) -> tuple[list[Prediction], str]:
    from medtune.inference.predictions import predict

    config = run_dir.config
    loaded = load_run_model(run_dir, record, for_training=False)
    _require_same_prompts(run_dir, which, record, loaded.renderer)
    model, origin = loaded.model, {}
    if which == "tuned":
        trained = run_dir.is_complete("train")
        adapter = run_dir.adapter_dir if trained else resolve_adapter(str(config.model.adapter))
        origin["adapter"] = record["adapter"] = adapter_fingerprint(adapter)
        model = attach_adapter(model, adapter, trainable=False)
    # In 16 bit the batch an answer is written in can decide a close call: both models get the same one.
    models: tuple[ModelName, ...] = get_args(ModelName)
    measured = [name for name in models if name != which and name in run_dir.stage_records]
    sizes = [run_dir.recorded(name, "batch_size", int) for name in measured]
    predicted = predict(
        model,
        loaded,
        _rows_to_test(run_dir),
        config=config,
        partial=PartialResults(run_dir.partial_file(which), origin),
        batch_size=sizes[0] if sizes else None,
    )
    record["rows"] = len(predicted.predictions)
    _record_predicted(record, predicted)
    return predicted.predictions, f"model:{config.model.quantization}|dtype:{loaded.dtype}"


def controls_stage(run_dir: RunDir, record: dict[str, Any]) -> None:
    """Answers and scores of every control that the recipe names."""
    precision = run_dir.recorded("baseline", "precision", str)
    systems: dict[SystemName, list[Prediction]] = {}
    if "few_shot" in run_dir.config.evaluation.controls:
        systems["few_shot"] = _few_shot(run_dir, record)
        release_memory()
    systems |= _text_controls(run_dir)
    _measure(run_dir, record, systems, precision)
    record["rows"] = {name: len(predictions) for name, predictions in systems.items()}


def _few_shot(run_dir: RunDir, record: dict[str, Any]) -> list[Prediction]:
    from medtune.inference.predictions import predict

    config = run_dir.config
    loaded = load_run_model(run_dir, record, for_training=False)
    _require_same_prompts(run_dir, "controls", record, loaded.renderer)
    train, test, cap = run_dir.read_split("train"), _rows_to_test(run_dir), config.generation.max_new_tokens
    tokens = control_answers.tokens_as_examples(loaded.renderer, train, cap)
    room = control_answers.room_for_examples(loaded.renderer, test, cap, loaded.positions)
    examples = control_answers.worked_examples(train, test, turn_tokens=tokens.__getitem__, room=room, seed=config.seed)
    fewer = sum(len(chosen) < control_answers.EXAMPLES for chosen in examples.values())
    if fewer:
        most = control_answers.EXAMPLES
        say(f"few-shot control: {fewer} of {len(test)} questions get fewer than {most} worked examples")
    partial = PartialResults(run_dir.partial_file("few_shot"), {})
    predicted = predict(loaded.model, loaded, test, config=config, partial=partial, examples=examples)
    record["questions_with_fewer_examples"] = fewer
    _record_predicted(record, predicted)
    return predicted.predictions


def _text_controls(run_dir: RunDir) -> dict[SystemName, list[Prediction]]:
    """The controls that no model writes, cut at the cap as a model's answers are."""
    config, train, test = run_dir.config, run_dir.read_split("train"), _rows_to_test(run_dir)
    renderer = renderer_of(run_dir.pinned_config)
    makers = {
        "random_answer": lambda: control_answers.random_answers(train, test, config.seed),
        "nearest_question": lambda: control_answers.nearest_answers(train, test),
        "cut_reference": lambda: [pair.answer for pair in test],
    }
    return {
        name: control_answers.capped_answers(renderer, test, makers[name](), config.generation.max_new_tokens)
        for name in config.evaluation.controls
        if name in makers
    }
