"""The controls stage: answers that needed no tuning, on the same rows, scored in the same way."""

from __future__ import annotations

from typing import Any

from medtune.model.loaded import renderer_of
from medtune.pipeline.evaluate import load_run_model, measure, record_predicted, rows_to_test
from medtune.records import Prediction, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.partial_results import PartialResults
from medtune.runtime.hardware import release_memory
from medtune.runtime.progress import say


def controls_stage(run_dir: RunDir, record: dict[str, Any]) -> None:
    """Answers and scores of every control that the recipe names."""
    precision = run_dir.recorded("baseline", "precision", str)
    systems: dict[SystemName, list[Prediction]] = {}
    if "few_shot" in run_dir.config.evaluation.controls:
        systems["few_shot"] = _few_shot(run_dir, record)
        release_memory()
    systems |= _text_controls(run_dir)
    measure(run_dir, systems, precision)
    record["rows"] = {name: len(predictions) for name, predictions in systems.items()}


def _few_shot(run_dir: RunDir, record: dict[str, Any]) -> list[Prediction]:
    from medtune.evaluation.controls import EXAMPLES, room_for_examples, tokens_as_examples, worked_examples
    from medtune.inference.predictions import predict

    config = run_dir.config
    loaded = load_run_model(run_dir, record, for_training=False)
    train, test, cap = run_dir.read_split("train"), rows_to_test(run_dir), config.generation.max_new_tokens
    tokens = tokens_as_examples(loaded.renderer, train, cap)
    room = room_for_examples(loaded.renderer, test, cap, loaded.positions)
    examples = worked_examples(train, test, turn_tokens=tokens.__getitem__, room=room, seed=config.seed)
    fewer = sum(len(chosen) < EXAMPLES for chosen in examples.values())
    if fewer:
        say(f"few-shot control: {fewer} of {len(test)} questions get fewer than {EXAMPLES} worked examples")
    partial = PartialResults(run_dir.partial_file("few_shot"), {})
    predicted = predict(loaded.model, loaded, test, config=config, partial=partial, examples=examples)
    record["questions_with_fewer_examples"] = fewer
    record_predicted(record, predicted)
    return predicted.predictions


def _text_controls(run_dir: RunDir) -> dict[SystemName, list[Prediction]]:
    """The controls that no model writes, cut at the cap as a model's answers are."""
    from medtune.evaluation.controls import capped_answers, nearest_answers, random_answers

    config, train, test = run_dir.config, run_dir.read_split("train"), rows_to_test(run_dir)
    renderer = renderer_of(run_dir.pinned_config)
    makers = {
        "random_answer": lambda: random_answers(train, test, config.seed),
        "nearest_question": lambda: nearest_answers(train, test),
        "cut_reference": lambda: [pair.answer for pair in test],
    }
    return {
        name: capped_answers(renderer, test, makers[name](), config.generation.max_new_tokens)
        for name in config.evaluation.controls
        if name in makers
    }
