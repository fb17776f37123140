"""The last stages: baseline and tuned side by side, with controls and strata, and the report; two runs compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.errors import Command, RunDirError
from medtune.evaluation.comparison import common_metrics, compare_measured, compare_strata, require_same_rows, stratify
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.comparison_tables import comparison_markdown
from medtune.evaluation.control_answers import DESCRIPTIONS
from medtune.evaluation.measurement import TextSettings, answer_lengths, reference_lengths
from medtune.evaluation.metrics import MetricRows
from medtune.evaluation.result_files import read_measured, write_comparison
from medtune.evaluation.significance import Subsamples, group_sizes
from medtune.pipeline.measure import is_outdated, measure_outdated
from medtune.pipeline.track import track_results
from medtune.records import Comparison, Control, ControlName, ModelName, Prediction, QAPair, Score, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import stage_of
from medtune.runtime.terminal import one_line


@dataclass(frozen=True)
class _Leaking:
    """What the comparison needs of an audit: ids of test rows by what they share with training rows."""

    leaking_test_rows: dict[str, list[str]]


@dataclass(frozen=True)
class _Examples:
    """What a stage recorded of a control with worked examples."""

    questions_with_fewer_examples: int


def compare_stage(run_dir: RunDir, record: dict[str, Any]) -> None:
    """Compare what the stages before it measured. Raises DataError if it was not measured alike."""
    comparison = _compare(run_dir)
    title = f"# {run_dir.config.model.base} before and after tuning\n\n"
    write_comparison(run_dir, comparison, title + comparison_markdown(comparison, reading_of(comparison).sentences))


def report_stage(run_dir: RunDir, record: dict[str, Any]) -> None:
    """The report page and the model card of a compared run, and all that its trackers get at its end."""
    from medtune.publishing.model_card import write_card
    from medtune.publishing.report import write_report

    write_report(run_dir)
    write_card(run_dir)
    track_results(run_dir, record)


def _compare(run_dir: RunDir) -> Comparison:
    config = run_dir.config
    names: list[ControlName] = list(config.evaluation.controls)
    systems: list[SystemName] = ["baseline", "tuned", *names]
    predictions = {name: run_dir.read_predictions(name) for name in systems}
    for name in systems[1:]:
        require_same_rows(predictions["baseline"], predictions[name], ("baseline", name))
    measure_outdated(run_dir, predictions)
    measured = {name: read_measured(run_dir, name) for name in systems}
    groups = [row.group for row in predictions["baseline"]]
    subsamples = Subsamples.draw(groups, splits=config.evaluation.resamples, seed=config.seed)
    # First, because it refuses what was not measured alike.
    rows = compare_measured(
        measured["baseline"],
        measured["tuned"],
        subsamples,
        primary=config.evaluation.primary,
        margins=config.evaluation.margins,
    )
    controls = [_compare_control(run_dir, name, measured[name], measured["tuned"], subsamples) for name in names]
    texts = TextSettings.of(config.evaluation)
    tested = _tested_rows(run_dir, predictions["baseline"])
    leaks = _leaks(run_dir, {row.id for row in tested})
    strata = compare_strata(
        stratify(tested, leaks),
        groups,
        measured["baseline"],
        measured["tuned"],
        splits=config.evaluation.resamples,
        seed=config.seed,
    )
    return Comparison(
        rows=tuple(rows),
        scores={"baseline": run_dir.read_scores("baseline"), "tuned": run_dir.read_scores("tuned")},
        lengths={name: answer_lengths(predictions[name], texts) for name in systems},
        references=reference_lengths(predictions["baseline"], config.generation.max_new_tokens),
        controls=tuple(controls),
        strata=tuple(strata),
        leaking_rows={kind: len(ids) for kind, ids in leaks.items()},
        groups=group_sizes(groups),  # without questions: what is written of them may be published
    )


def _compare_control(
    run_dir: RunDir, name: ControlName, measured: list[MetricRows], tuned: list[MetricRows], subsamples: Subsamples
) -> Control:
    scores, evaluation = run_dir.read_scores(name), run_dir.config.evaluation
    description = DESCRIPTIONS[name] + _examples_told(run_dir, name, int(subsamples.group_of_row.size))
    rows = compare_measured(
        measured,
        common_metrics(tuned, scores),
        subsamples,
        names=(name, "tuned"),
        primary=evaluation.primary,
        margins=evaluation.margins,
    )
    return Control(name, description, scores, tuple(rows))


def _examples_told(run_dir: RunDir, name: ControlName, questions: int) -> str:
    """In brackets, how many worked examples a control was given, where that is not in its description."""
    told = []
    if name in ("retrieval", "tuned_retrieval"):
        told.append(f"k = {run_dir.config.evaluation.retrieved}")
        fewer = run_dir.recorded(stage_of(name), name, _Examples).questions_with_fewer_examples
    elif name == "few_shot":
        fewer = run_dir.recorded("controls", "questions_with_fewer_examples", int)
    else:
        fewer = 0
    if fewer:
        told.append(f"{fewer} of {questions} questions left room for fewer")
    return f" ({'; '.join(told)})" if told else ""


def _tested_rows(run_dir: RunDir, predictions: list[Prediction]) -> list[QAPair]:
    """The test row of each prediction."""
    by_id = {pair.id: pair for pair in run_dir.read_split("test")}
    if unknown := [row.id for row in predictions if row.id not in by_id]:
        file = run_dir.predictions_file("baseline")
        raise RunDirError(file, f"{unknown[0]} is no row of the test split", "evaluate that model again")
    return [by_id[row.id] for row in predictions]


def _leaks(run_dir: RunDir, tested: set[str]) -> dict[str, set[str]]:
    """Ids of the scored rows that share something with training rows, by kind; kinds without any are left out."""
    leaking = run_dir.read_as(_Leaking, run_dir.audit_file).leaking_test_rows
    found = {kind: tested & set(ids) for kind, ids in leaking.items()}
    return {kind: ids for kind, ids in found.items() if ids}


def compare_runs(first: RunDir, second: RunDir) -> Comparison:
    """The tuned answers of two runs side by side, from what the runs measured; nothing is scored again.

    Raises RunDirError for a run without tuned answers, and DataError unless both answered the same rows and were
    measured alike.
    """
    names = run_names(first.path, second.path)
    for run in (first, second):
        run.require("tuned")
    before, after = first.read_predictions("tuned"), second.read_predictions("tuned")
    require_same_rows(before, after, names)
    for run, predictions in ((first, before), (second, after)):
        if is_outdated(run, "tuned", predictions):
            problem = "an older version scored its answers together with text that is not the answer"
            fix = (f"delete {run.comparison_file.name} there and run ", Command("compare", run.path))
            raise RunDirError(run.path, problem, fix)
    of_first, of_second = read_measured(first, "tuned"), read_measured(second, "tuned")
    if any(one.reference_tokens != other.reference_tokens for one, other in zip(before, after, strict=True)):
        # Perplexities of different tokenizers never compare; bits per byte do.
        of_first = [rows for rows in of_first if not rows.metric.counts_tokens]
        of_second = [rows for rows in of_second if not rows.metric.counts_tokens]
    config = second.config
    groups = [row.group or other.group for row, other in zip(before, after, strict=True)]
    subsamples = Subsamples.draw(groups, splits=config.evaluation.resamples, seed=config.seed)
    rows = compare_measured(
        of_first, of_second, subsamples, names, primary=config.evaluation.primary, margins=config.evaluation.margins
    )
    compared = {row.metric for row in rows}
    scores: dict[ModelName, dict[str, Score]] = {
        "baseline": {name: score for name, score in first.read_scores("tuned").items() if name in compared},
        "tuned": {name: score for name, score in second.read_scores("tuned").items() if name in compared},
    }
    return Comparison(
        rows=tuple(rows),
        scores=scores,
        lengths={
            "baseline": answer_lengths(before, TextSettings.of(first.config.evaluation)),
            "tuned": answer_lengths(after, TextSettings.of(config.evaluation)),
        },
        references=reference_lengths(before, config.generation.max_new_tokens),
        groups=group_sizes(groups, [row.question for row in before]),
        names=names,
    )


def run_names(first: Path, second: Path) -> tuple[str, str]:
    """The names of two runs' folders, or where these are the same, the paths as they were given."""
    names = one_line(first.absolute().name), one_line(second.absolute().name)
    return names if names[0] != names[1] and all(names) else (one_line(str(first)), one_line(str(second)))
