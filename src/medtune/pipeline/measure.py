"""Predictions measured: of the systems that a stage answers as, and again of those that an older version measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtune.config.evaluation import GenerationSection
from medtune.config.schema import ModelSection
from medtune.evaluation.encoder import resolve_encoder
from medtune.evaluation.formatting import listed
from medtune.evaluation.measurement import (
    TextSettings,
    as_heard,
    as_told,
    in_table_order,
    measure_rows,
    score_rows,
    share_of_metrics,
)
from medtune.evaluation.metrics import MetricRows, metric_named, needs_encoder
from medtune.evaluation.result_files import write_system
from medtune.evaluation.significance import Subsamples
from medtune.evaluation.text_warnings import text_warnings
from medtune.records import Prediction, Score, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import StageName, stage_of
from medtune.runtime.distributed import exchange
from medtune.runtime.hardware import choose_device
from medtune.runtime.launch import is_main, rank, world_size
from medtune.runtime.progress import say
from medtune.storage.hub import fetch_snapshot


def measure_systems(
    run_dir: RunDir,
    record: dict[str, Any],
    systems: Mapping[SystemName, Sequence[Prediction]],
    precision: str,
    *,
    shared: bool = True,
) -> None:
    """Score the predictions of each system, and write them with their statistics and scores.

    The processes of a launch share the metrics and have to call this together, unless it is not `shared`; the first one
    writes. `record` gets how texts were read, and the counts of text that is not the answer where there is any.
    """
    config = run_dir.config
    precision += _template_words(config.model)
    metrics = config.evaluation.metrics
    part = (rank(), world_size()) if shared else (0, 1)
    own = share_of_metrics(metrics, *part)
    encoder = resolve_encoder(config.evaluation.bertscore_model, fetch_snapshot) if needs_encoder(own) else None
    caps = _caps(config.generation)
    texts = TextSettings.of(config.evaluation)
    record["answers"] = texts.answers
    found: dict[SystemName, list[MetricRows]] = {}
    for name, predictions in systems.items():
        # What no model wrote has no likelihood of the references.
        written = all(row.reference_nll is not None for row in predictions)
        possible = [metric for metric in own if written or metric_named(metric).reads_answers]
        found[name] = (
            measure_rows(
                predictions,
                possible,
                encoder=encoder,
                device=choose_device().value,
                caps=caps,
                precision=precision,
                texts=texts,
            )
            if possible
            else []
        )
    if shared:
        found = _gathered(found, metrics)
    if not shared or is_main():
        _score_systems(run_dir, record, systems, found)


def _gathered(found: dict[SystemName, list[MetricRows]], metrics: Sequence[str]) -> dict[SystemName, list[MetricRows]]:
    """What all processes have measured, as one of them would have."""
    if world_size() == 1:
        return found
    told = exchange({name: list(map(as_told, measured)) for name, measured in found.items()})
    gathered = {name: [as_heard(rows) for part in told for rows in part[name]] for name in found}
    return {name: in_table_order(measured, metrics) for name, measured in gathered.items()}


def _score_systems(
    run_dir: RunDir,
    record: dict[str, Any],
    systems: Mapping[SystemName, Sequence[Prediction]],
    found: Mapping[SystemName, Sequence[MetricRows]],
) -> None:
    """Values and intervals from the statistics a row, written with them."""
    config = run_dir.config
    scores: dict[str, dict[str, Score]] = {}
    for name, predictions in systems.items():
        measured = found[name]
        groups = [row.group for row in predictions]
        subsamples = Subsamples.draw(groups, splits=config.evaluation.resamples, seed=config.seed)
        scores[name] = score_rows(measured, subsamples)
        write_system(run_dir, name, predictions, measured, scores[name])
        if not_answer := next((rows.details["not_answer"] for rows in measured if "not_answer" in rows.details), None):
            record.setdefault("not_answer", {})[name] = not_answer
    for warning in text_warnings(scores):
        say(warning)


def _caps(generation: GenerationSection) -> str:
    """How answers were cut and by what they were written, where that is not medtune's own decoder."""
    engine = "" if generation.engine == "medtune" else f"|engine:{generation.engine}"
    return f"max_new_tokens:{generation.max_new_tokens}|decoding:{generation.decoding}{engine}"


def _template_words(model: ModelSection) -> str:
    """The end of every signature where the recipe has the chat template write otherwise than by its defaults."""
    words = [f"chat_template:{Path(model.chat_template).name}"] if model.chat_template else []
    words += [f"{name}:{json.dumps(value)}" for name, value in sorted(model.template_settings.items())]
    return "".join(f"|{word}" for word in words)


def is_outdated(run_dir: RunDir, system: SystemName, predictions: Sequence[Prediction]) -> bool:
    """Whether medtune 0.1.0 scored these predictions together with text that is not the answer.

    Its signatures are those of scores without that text.
    """
    if "answers" in run_dir.stage_records.get(stage_of(system), {}):
        return False
    return bool(TextSettings.of(run_dir.config.evaluation).read(predictions).details)


def measure_outdated(run_dir: RunDir, systems: Mapping[SystemName, Sequence[Prediction]]) -> None:
    """Score those of `systems` again whose scores are outdated, from their predictions, and say so."""
    outdated = {name: rows for name, rows in systems.items() if is_outdated(run_dir, name, rows)}
    if not outdated:
        return
    say(
        f"{run_dir.path}: an older version scored text that is not the answer; {listed(list(outdated))} "
        f"{'is' if len(outdated) == 1 else 'are'} scored again without it"
    )
    stages: dict[StageName, dict[SystemName, Sequence[Prediction]]] = {}
    for name, rows in outdated.items():
        stages.setdefault(stage_of(name), {})[name] = rows
    for stage, again in stages.items():
        record = dict(run_dir.stage_records[stage])
        # Controls have the precision of the baseline.
        precision = run_dir.recorded("tuned" if stage == "tuned" else "baseline", "precision", str)
        measure_systems(run_dir, record, again, precision, shared=False)
        run_dir.complete(stage, record, outdates=False)
