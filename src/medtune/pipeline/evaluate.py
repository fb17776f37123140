"""The stages that measure: baseline, controls, tuned, and the comparison of all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.errors import RunDirError
from medtune.model.loaded import LoadedModel, load_model, renderer_of
from medtune.records import Comparison, Control, ControlName, ModelName, Prediction, QAPair, SystemName
from medtune.run_dir import provenance
from medtune.run_dir.directory import RunDir, StageName, pin_revision
from medtune.run_dir.partial_results import PartialResults
from medtune.runtime.distributed import is_main
from medtune.runtime.hardware import choose_device, release_memory
from medtune.runtime.progress import say, tell_skipped

if TYPE_CHECKING:
    from medtune.evaluation.scores import MetricRows
    from medtune.evaluation.significance import Resamples
    from medtune.inference.predictions import Predicted


@dataclass(frozen=True)
class _Leaking:
    """What the comparison needs of an audit: ids of test rows by what they share with training rows."""

    leaking_test_rows: dict[str, list[str]]


def evaluate_stage(run_dir: RunDir, which: ModelName) -> None:
    """Answers, reference losses and scores of the base model, or of the base with the trained adapter."""
    run_dir.lock()
    if skip(run_dir, which):
        _forget_partial(run_dir, which)
        return
    run_dir.require("data", "medtune data prepare")
    config = run_dir.config()
    # A stored adapter stands in for a training that there was none of, not for one whose adapter is damaged.
    if which == "tuned" and (config.model.adapter is None or run_dir.damage("train")):
        run_dir.require("train", f"medtune train {run_dir.path}")
    with provenance.stage(run_dir, which) as record:
        predictions, precision = _predict(run_dir, which, config, record)
        # The model is gone, but stands in reference cycles: BERTScore's encoder wants its memory.
        release_memory()
        _measure(run_dir, {which: predictions}, config, precision)
        record["precision"] = precision
    _forget_partial(run_dir, which)


def controls_stage(run_dir: RunDir) -> None:
    """Answers that took no tuning, on the same rows, scored alike."""
    run_dir.lock()
    config = run_dir.config()
    if not config.evaluation.controls:
        return
    if skip(run_dir, "controls"):
        _forget_partial(run_dir, "few_shot")
        return
    # They are compared with models, whose precision their signatures share.
    run_dir.require("baseline", f"medtune evaluate {run_dir.path} --model baseline")
    with provenance.stage(run_dir, "controls") as record:
        precision = run_dir.recorded("baseline", "precision", str)
        systems: dict[SystemName, list[Prediction]] = {}
        if "few_shot" in config.evaluation.controls:
            systems["few_shot"] = _few_shot(run_dir, config, record)
            release_memory()
        systems |= _text_controls(run_dir, config)
        _measure(run_dir, systems, config, precision)
        record["rows"] = {name: len(predictions) for name, predictions in systems.items()}
    _forget_partial(run_dir, "few_shot")


def compare_stage(run_dir: RunDir) -> None:
    """Baseline and tuned side by side, beside the controls and by strata, as JSON and Markdown."""
    from medtune.evaluation.artefacts import write_comparison
    from medtune.evaluation.reading import read_comparison
    from medtune.evaluation.tables import comparison_markdown

    run_dir.lock()
    if skip(run_dir, "compare"):
        return
    for stage in ("baseline", "tuned"):
        run_dir.require(stage, f"medtune evaluate {run_dir.path} --model {stage}")
    if run_dir.config().evaluation.controls:
        run_dir.require("controls", f"medtune evaluate {run_dir.path} --model controls")
    with provenance.stage(run_dir, "compare"):
        comparison = _compare(run_dir)
        title = f"# {run_dir.config().model.base} before and after tuning\n\n"
        write_comparison(run_dir, comparison, title + comparison_markdown(comparison, read_comparison(comparison)))


def load_run_model(run_dir: RunDir, config: Config, record: dict[str, Any], *, for_training: bool) -> LoadedModel:
    """The base model at the commit that the run's first stage found; `record` gets the choices made for it.

    Raises ModelError, and RunDirError if the model is not the one that earlier stages had.
    """
    loaded = load_model(pin_revision(run_dir, config), for_training=for_training)
    provenance.require_same_base(run_dir, loaded.identity)
    record["base_identity"] = loaded.identity
    if is_main():
        run_dir.update_provenance(model={"base": config.model.base, "revision": loaded.revision})
    record["choices"] = {name: {"value": c.value, "reason": c.reason} for name, c in loaded.choices.items()}
    return loaded


def skip(run_dir: RunDir, name: StageName) -> bool:
    """Whether a stage is complete; says so, or which of its files it is made again for."""
    if run_dir.is_complete(name):
        say(f"── {name}: complete, skipped")
        tell_skipped(name)
        for text in run_dir.edited_texts(name):
            say(f"{run_dir.path / text}: edited since it was written, kept; delete it to have it made again")
        return True
    if damage := run_dir.damage(name):
        say(f"{run_dir.path}: {damage}; the {name} stage is made again")
    return False


def _forget_partial(run_dir: RunDir, system: SystemName) -> None:
    # Only once the stage is complete, and by the next process if this one has no time left for it.
    run_dir.partial_file(system).unlink(missing_ok=True)


def _test_rows(run_dir: RunDir, config: Config) -> list[QAPair]:
    from medtune.data.splits import sample_rows

    test = run_dir.read_split("test")
    if not test:  # which the data stage never leaves
        raise RunDirError(f"{run_dir.split_file('test')}: damaged, no rows; restore it, or start another --run-dir")
    chosen = {pair.id for pair in sample_rows(test, config.evaluation.max_examples, config.seed)}
    return [pair for pair in test if pair.id in chosen]


def _predict(run_dir: RunDir, which: ModelName, config: Config, record: dict[str, Any]) -> tuple[list[Prediction], str]:
    from medtune.inference.predictions import predict
    from medtune.model.adapters import adapter_fingerprint, attach_adapter, resolve_adapter

    loaded = load_run_model(run_dir, config, record, for_training=False)
    model, origin = loaded.model, {}
    if which == "tuned":
        trained = run_dir.is_complete("train")
        adapter = run_dir.adapter_dir if trained else resolve_adapter(str(config.model.adapter))
        origin["adapter"] = record["adapter"] = adapter_fingerprint(adapter)
        model = attach_adapter(model, adapter, trainable=False)
    # In 16 bit the batch an answer is written in can decide a close call: both models get the same one.
    models: tuple[ModelName, ...] = get_args(ModelName)
    measured = [name for name in models if name != which and name in run_dir.provenance().get("stages", {})]
    sizes = [run_dir.recorded(name, "batch_size", int) for name in measured]
    predicted = predict(
        model,
        loaded,
        _test_rows(run_dir, config),
        config=config,
        partial=PartialResults(run_dir.partial_file(which), origin),
        batch_size=sizes[0] if sizes else None,
    )
    record["rows"] = len(predicted.predictions)
    _record_predicted(record, predicted)
    return predicted.predictions, f"model:{config.model.quantization}|dtype:{loaded.dtype}"


def _few_shot(run_dir: RunDir, config: Config, record: dict[str, Any]) -> list[Prediction]:
    from medtune.evaluation.controls import EXAMPLES, worked_examples
    from medtune.inference.predictions import predict

    loaded = load_run_model(run_dir, config, record, for_training=False)
    test, cap, renderer = _test_rows(run_dir, config), config.generation.max_new_tokens, loaded.renderer
    train = run_dir.read_split("train")
    turn_tokens = _turn_tokens(renderer, train, cap)
    room = _room(renderer, test, cap, loaded.positions)
    examples = worked_examples(train, test, turn_tokens=turn_tokens.__getitem__, room=room, seed=config.seed)
    fewer = sum(len(chosen) < EXAMPLES for chosen in examples.values())
    if fewer:
        say(f"few-shot control: {fewer} of {len(test)} questions get fewer than {EXAMPLES} worked examples")
    partial = PartialResults(run_dir.partial_file("few_shot"), {})
    predicted = predict(loaded.model, loaded, test, config=config, partial=partial, examples=examples)
    record["questions_with_fewer_examples"] = fewer
    _record_predicted(record, predicted)
    return predicted.predictions


def _record_predicted(record: dict[str, Any], predicted: Predicted) -> None:
    record["choices"]["weights"] = asdict(predicted.weights)
    record |= {"batch_size": predicted.batch_size, "times_out_of_memory": predicted.times_out_of_memory}


def _turn_tokens(renderer: PromptRenderer, pairs: Sequence[QAPair], cap: int) -> dict[QAPair, int | None]:
    """What each row takes as a worked example; None where its answer is longer than the cap allows one to be."""
    word = QAPair("", "", "a", "a")
    overhead = len(renderer.prompt_ids("a", [word])) - len(renderer.prompt_ids("a"))
    questions = renderer.count_tokens_of([pair.question for pair in pairs])
    answers = renderer.count_tokens_of([pair.answer for pair in pairs])
    return {
        pair: None if answer >= cap else overhead + question + answer
        for pair, question, answer in zip(pairs, questions, answers, strict=True)
    }


def _room(renderer: PromptRenderer, pairs: Sequence[QAPair], cap: int, positions: int | None) -> dict[str, float]:
    """Tokens that each question leaves for worked examples, beside the longer of its reference and the cap."""
    if positions is None:
        return dict.fromkeys((pair.id for pair in pairs), math.inf)
    prompts = renderer.prompts([pair.question for pair in pairs])
    answers = renderer.count_tokens_of([pair.answer for pair in pairs])
    return {
        pair.id: positions - len(prompt) - max(cap, answer + 1)
        for pair, prompt, answer in zip(pairs, prompts, answers, strict=True)
    }


def _text_controls(run_dir: RunDir, config: Config) -> dict[SystemName, list[Prediction]]:
    """The controls that no model writes, cut at the cap as a model's answers are."""
    from medtune.evaluation.controls import nearest_answers, random_answers

    train, test = run_dir.read_split("train"), _test_rows(run_dir, config)
    renderer = renderer_of(pin_revision(run_dir, config))
    makers = {
        "random_answer": lambda: random_answers(train, test, config.seed),
        "nearest_question": lambda: nearest_answers(train, test),
        "cut_reference": lambda: [pair.answer for pair in test],
    }
    cap = config.generation.max_new_tokens
    controls: dict[SystemName, list[Prediction]] = {}
    for name in config.evaluation.controls:
        if name in makers:
            texts = makers[name]()
            tokens = renderer.count_tokens_of(texts)
            controls[name] = [_capped(renderer, *row, cap) for row in zip(test, texts, tokens, strict=True)]
    return controls


def _capped(renderer: PromptRenderer, pair: QAPair, text: str, tokens: int, cap: int) -> Prediction:
    tokens += 1  # the end token
    return Prediction(
        id=pair.id,
        question=pair.question,
        reference=pair.answer,
        prediction=text if tokens <= cap else renderer.cut_to(text, cap),
        new_tokens=min(tokens, cap),
        finish_reason="stop" if tokens <= cap else "length",
        group=pair.group,
        qtype=pair.qtype,
    )


def _measure(
    run_dir: RunDir, systems: Mapping[SystemName, Sequence[Prediction]], config: Config, precision: str
) -> None:
    from medtune.evaluation.artefacts import write_system
    from medtune.evaluation.bertscore import resolve_encoder
    from medtune.evaluation.scores import measure_rows, score_rows
    from medtune.evaluation.significance import Resamples
    from medtune.storage.hub import fetch_snapshot

    metrics = config.evaluation.metrics
    encoder = resolve_encoder(config.evaluation.bertscore_model, fetch_snapshot) if "bertscore_f1" in metrics else None
    caps = f"max_new_tokens:{config.generation.max_new_tokens}|decoding:{config.generation.decoding}"
    for name, predictions in systems.items():
        # What no model wrote has no likelihood of the references.
        written = all(row.reference_nll is not None for row in predictions)
        possible = [metric for metric in metrics if written or metric != "perplexity"]
        measured = measure_rows(
            predictions, possible, encoder=encoder, device=choose_device().value, caps=caps, precision=precision
        )
        groups = [row.group for row in predictions]
        resamples = Resamples.draw(groups, resamples=config.evaluation.resamples, seed=config.seed)
        write_system(run_dir, name, predictions, measured, score_rows(measured, resamples))


def _compare(run_dir: RunDir) -> Comparison:
    from medtune.evaluation.artefacts import read_measured
    from medtune.evaluation.comparison import compare_measured, require_same_rows
    from medtune.evaluation.lengths import answer_lengths, reference_lengths
    from medtune.evaluation.significance import Resamples
    from medtune.evaluation.strata import compare_strata, stratify

    config = run_dir.config()
    names: list[ControlName] = list(config.evaluation.controls)
    systems: list[SystemName] = ["baseline", "tuned", *names]
    predictions = {name: run_dir.read_predictions(name) for name in systems}
    for name in systems[1:]:
        require_same_rows(predictions["baseline"], predictions[name], ("baseline", name))
    measured = {name: read_measured(run_dir, name) for name in systems}
    groups = [row.group for row in predictions["baseline"]]
    resamples = Resamples.draw(groups, resamples=config.evaluation.resamples, seed=config.seed)
    # First, because it refuses what was not measured alike.
    rows = compare_measured(measured["baseline"], measured["tuned"], resamples)
    controls = [_compare_control(run_dir, name, measured[name], measured["tuned"], resamples) for name in names]
    by_id = {pair.id: pair for pair in run_dir.read_split("test")}
    if unknown := [row.id for row in predictions["baseline"] if row.id not in by_id]:
        file = run_dir.predictions_file("baseline")
        raise RunDirError(f"{file}: {unknown[0]} is no row of the test split; evaluate that model again")
    tested = [by_id[row.id] for row in predictions["baseline"]]
    leaks = _leaks(run_dir, {row.id for row in tested})
    strata = compare_strata(
        stratify(tested, leaks),
        groups,
        measured["baseline"],
        measured["tuned"],
        resamples=config.evaluation.resamples,
        seed=config.seed,
    )
    return Comparison(
        rows=tuple(rows),
        scores={"baseline": run_dir.read_scores("baseline"), "tuned": run_dir.read_scores("tuned")},
        lengths={name: answer_lengths(predictions[name]) for name in systems},
        references=reference_lengths(predictions["baseline"], config.generation.max_new_tokens),
        controls=tuple(controls),
        strata=tuple(strata),
        leaking_rows={kind: len(ids) for kind, ids in leaks.items()},
    )


def _compare_control(
    run_dir: RunDir, name: ControlName, measured: list[MetricRows], tuned: list[MetricRows], resamples: Resamples
) -> Control:
    from medtune.evaluation.comparison import common_metrics, compare_measured
    from medtune.evaluation.controls import DESCRIPTIONS

    scores, description = run_dir.read_scores(name), DESCRIPTIONS[name]
    if name == "few_shot" and (fewer := run_dir.recorded("controls", "questions_with_fewer_examples", int)):
        description += f" ({fewer} of {resamples.group_of_row.size} questions left room for fewer)"
    rows = compare_measured(measured, common_metrics(tuned, scores), resamples, names=(name, "tuned"))
    return Control(name, description, scores, tuple(rows))


def _leaks(run_dir: RunDir, tested: set[str]) -> dict[str, set[str]]:
    """Ids of the scored rows that share something with training rows, by kind; kinds that touch none are left out."""
    leaking = run_dir.read_as(_Leaking, run_dir.audit_file).leaking_test_rows
    found = {kind: tested & set(ids) for kind, ids in leaking.items()}
    return {kind: ids for kind, ids in found.items() if ids}
