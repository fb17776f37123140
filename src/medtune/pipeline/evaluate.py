"""The stages that measure: answers to the test rows, reference losses and scores, of the models and of the controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from medtune.data.prompts import PromptRenderer
from medtune.data.splits import sample_rows
from medtune.errors import Option, RunDirError
from medtune.evaluation import control_answers
from medtune.evaluation.nearest_questions import NearestQuestions
from medtune.model.adapters import adapter_fingerprint, attach_adapter, resolve_adapter, say_other_base
from medtune.model.loaded import LoadedModel, load_model, renderer_of
from medtune.model.packing import prompts_checksum
from medtune.pipeline.engines import Answered, answered, find_vllm
from medtune.pipeline.measure import measure_systems
from medtune.pipeline.sharing import SHARED, sharing_of_launch
from medtune.records import ControlName, ModelName, QAPair, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import StageName, controls_of
from medtune.run_dir.partial_results import PartialResults
from medtune.runtime.hardware import Choice, release_memory
from medtune.runtime.launch import is_main, world_size
from medtune.runtime.progress import say

if TYPE_CHECKING:
    from medtune.inference.predictions import Asked
    from medtune.inference.vllm.answering import VllmEngine

_Asked = dict[SystemName, "Asked"]


def evaluate_stage(run_dir: RunDir, record: dict[str, Any], which: ModelName) -> None:
    """Answers, reference losses and scores of the base model, or of the base with the trained adapter.

    The latter answers once more as the controls that need it.
    """
    systems, precision = _answer(run_dir, which, record)
    # The model is gone, but reference cycles still hold it: BERTScore's encoder wants its memory.
    release_memory()
    measure_systems(run_dir, record, systems, precision)
    record["precision"] = precision


def load_run_model(run_dir: RunDir, record: dict[str, Any], *, for_training: bool) -> LoadedModel:
    """The base model at the commit that the run's first stage found; `record` gets the choices made for it.

    Raises ModelError, and RunDirError if the model is not the one that earlier stages had.
    """
    sharing = sharing_of_launch(run_dir.pinned_config)
    loaded = load_model(run_dir.pinned_config, for_training=for_training, shared=sharing.value == SHARED)
    run_dir.require_same_base(loaded.identity)
    record["base_identity"] = loaded.identity
    if is_main():
        run_dir.update_provenance(model={"base": run_dir.config.model.base, "revision": loaded.revision})
    choices = {**loaded.choices, "sharing": sharing} if world_size() > 1 else loaded.choices
    record["choices"] = {name: asdict(choice) for name, choice in choices.items()}
    return loaded


def _rows_to_test(run_dir: RunDir) -> list[QAPair]:
    """The test rows that are scored: all of them, or the sample of `evaluation.max_examples`, in their order."""
    config, test = run_dir.config, run_dir.read_split("test")
    if not test:  # which the data stage never leaves
        fix = ("restore it, or start another ", Option("run_dir"))
        raise RunDirError(run_dir.split_file("test"), "damaged, no rows", fix)
    chosen = {pair.id for pair in sample_rows(test, config.evaluation.max_examples, config.seed)}
    return [pair for pair in test if pair.id in chosen]


def require_same_prompts(run_dir: RunDir, stage: StageName, record: dict[str, Any], renderer: PromptRenderer) -> None:
    """Record a checksum of the prompts of the test rows. Raises RunDirError if another stage had other prompts."""
    checksum = prompts_checksum(renderer.pair_prompts(_rows_to_test(run_dir)))
    record["prompts_sha256"] = checksum
    stages: tuple[StageName, ...] = ("baseline", "controls", "train", "tuned")
    for other in stages:
        known = run_dir.stage_records.get(other, {}).get("prompts_sha256", checksum)
        if other != stage and known != checksum and run_dir.is_complete(other):
            raise RunDirError(
                run_dir.path,
                f"the prompts of the test rows are not those of the {other} stage: the tokenizer or chat template of "
                f"{run_dir.config.model.base} has changed, or the template prints a date or anything else that changes",
                ("restore its files, or start a new run in another ", Option("run_dir")),
            )


def _answer(run_dir: RunDir, which: ModelName, record: dict[str, Any]) -> tuple[Answered, str]:
    engine, adapter = find_vllm(run_dir, which, record), None
    if which == "tuned":
        trained = run_dir.is_complete("train")
        adapter = run_dir.adapter_dir if trained else resolve_adapter(str(run_dir.config.model.adapter))
        if not trained:
            say_other_base(adapter, run_dir.config.model.base)
    asked = _ask_model(run_dir, which, record, adapter, engine)
    systems = answered(run_dir, record, asked, adapter, engine)
    return systems, f"model:{run_dir.config.model.quantization}|dtype:{record['choices']['dtype']['value']}"


def _ask_model(
    run_dir: RunDir, which: ModelName, record: dict[str, Any], adapter: Path | None, engine: VllmEngine | None
) -> _Asked:
    """The base model, or the base with `adapter`, asked the test rows, and as its controls; then it is let go."""
    from medtune.inference.predictions import ask_rows

    config, test, origin = run_dir.config, _rows_to_test(run_dir), dict(engine.origin if engine else {})
    loaded = load_run_model(run_dir, record, for_training=False)
    require_same_prompts(run_dir, which, record, loaded.renderer)
    if adapter is not None:
        origin["adapter"] = record["adapter"] = adapter_fingerprint(adapter)
        loaded = replace(loaded, model=attach_adapter(loaded.model, adapter, trainable=False))
    # In 16 bit the batch an answer is written in can decide a close call: both models get the same one.
    models: tuple[ModelName, ...] = get_args(ModelName)
    measured = [name for name in models if name != which and name in run_dir.stage_records]
    sizes = [run_dir.recorded(name, "batch_size", int) for name in measured]
    partial = PartialResults(run_dir.partial_file(which), origin)
    first = ask_rows(loaded, test, config=config, partial=partial, batch_size=sizes[0] if sizes else None)
    record["rows"] = len(test)
    record["choices"]["weights"] = asdict(first.plan.weights)
    asked: _Asked = {which: first}
    if names := controls_of(which, config.evaluation.controls):
        nearest = NearestQuestions(run_dir.read_split("train"))
        weights = first.plan.weights
        asked |= _after_examples(run_dir, loaded, record, names, nearest, origin=origin, weights=weights)
    return asked


def controls_stage(run_dir: RunDir, record: dict[str, Any]) -> None:
    """Answers and scores of every control that the recipe names, except what only the tuned model can answer as."""
    precision = run_dir.recorded("baseline", "precision", str)
    names = controls_of("controls", run_dir.config.evaluation.controls)
    nearest = NearestQuestions(run_dir.read_split("train"))
    systems: Answered = {}
    if written := [name for name in names if name in control_answers.WRITTEN]:
        engine = find_vllm(run_dir, "controls", record)
        asked = _ask_base(run_dir, record, written, nearest, engine)
        systems |= answered(run_dir, record, asked, None, engine)
        del asked
        release_memory()
    systems |= _text_controls(run_dir, names, nearest)
    measure_systems(run_dir, record, systems, precision)
    record["rows"] = {name: len(predictions) for name, predictions in systems.items()}


def _ask_base(
    run_dir: RunDir,
    record: dict[str, Any],
    names: Sequence[ControlName],
    nearest: NearestQuestions,
    engine: VllmEngine | None,
) -> _Asked:
    """The base model, asked as each of the controls `names`; then it is let go."""
    loaded = load_run_model(run_dir, record, for_training=False)
    require_same_prompts(run_dir, "controls", record, loaded.renderer)
    return _after_examples(run_dir, loaded, record, names, nearest, origin=engine.origin if engine else {})


def _after_examples(
    run_dir: RunDir,
    loaded: LoadedModel,
    record: dict[str, Any],
    names: Sequence[ControlName],
    nearest: NearestQuestions,
    *,
    origin: Mapping[str, str] = MappingProxyType({}),
    weights: Choice | None = None,
) -> _Asked:
    """One model asked as each of the controls `names`, which differ in the worked examples before the question.

    `weights` are those of a model that has answered before.
    """
    from medtune.inference.predictions import ask_rows

    config, test, cap = run_dir.config, _rows_to_test(run_dir), run_dir.config.generation.max_new_tokens
    tokens = control_answers.tokens_as_examples(loaded.renderer, nearest.train, cap)
    room = control_answers.room_for_examples(loaded.renderer, test, cap, loaded.positions)
    asked: _Asked = {}
    for name in names:
        examples = control_answers.examples_for(
            name, nearest, test, turn_tokens=tokens.__getitem__, room=room, config=config
        )
        most = control_answers.most_examples(name, config)
        fewer = sum(len(rows) < most for rows in examples.values())
        short = f"; {fewer} of {len(test)} questions get fewer" if fewer else ""
        say(f"{name.replace('_', '-')} control: {most} worked examples before each question{short}")
        partial = PartialResults(run_dir.partial_file(name), origin)
        asked[name] = ask_rows(loaded, test, config=config, partial=partial, examples=examples, weights=weights)
        weights = asked[name].plan.weights
        record["choices"]["weights"] = asdict(weights)
        told = {"questions_with_fewer_examples": fewer}
        # Where runs have it that knew no other.
        record |= told if name == "few_shot" else {name: told}
    return asked


def _text_controls(run_dir: RunDir, names: Sequence[ControlName], nearest: NearestQuestions) -> Answered:
    """Those of the controls `names` that no model writes, cut at the cap as a model's answers are."""
    config, test = run_dir.config, _rows_to_test(run_dir)
    renderer = renderer_of(run_dir.pinned_config)
    makers: dict[SystemName, Callable[[], list[str]]] = {
        "random_answer": lambda: control_answers.random_answers(nearest.train, test, config.seed),
        "nearest_question": lambda: control_answers.nearest_answers(nearest, test),
        "cut_reference": lambda: [pair.answer for pair in test],
    }
    return {
        name: control_answers.capped_answers(renderer, test, makers[name](), config.generation.max_new_tokens)
        for name in names
        if name in makers
    }
