"""The files of evaluation in a run directory, written and read back."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtune.errors import Command, RunDirError, first_line
from medtune.evaluation.metrics import Metric, MetricRows, metric_named
from medtune.records import Comparison, Control, ModelName, Prediction, Score, SystemName
from medtune.run_dir.directory import RunDir
from medtune.storage.reading import DamagedError, check_type


def write_system(
    run: RunDir,
    system: SystemName,
    predictions: Sequence[Prediction],
    measured: Sequence[MetricRows],
    scores: dict[str, Score],
) -> None:
    """Write one system's predictions, its statistics a row (columns such as `bleu.matched_1grams`) and its scores."""
    columns = {"id": pa.array([row.id for row in predictions])}
    for rows in measured:
        for number, column in enumerate(_column_names(rows.metric)):
            columns[column] = pa.array(rows.rows[:, number])
    run.write_predictions(system, predictions)
    run.write_table(run.row_statistics_file(system), pa.table(columns))
    run.write_scores(system, scores)


def read_measured(run: RunDir, system: SystemName) -> list[MetricRows]:
    """One system's statistics a row. Raises RunDirError if they are missing or do not fit its scores."""
    scores = run.read_scores(system)
    path, fix = run.row_statistics_file(system), "evaluate that model again"
    try:
        with pq.ParquetFile(path) as file:
            # Equal rows take next to no room on disk, and all of it in memory.
            if any(file.metadata.num_rows != score.n for score in scores.values()):
                raise RunDirError(path, f"does not fit the scores beside it ({next(iter(scores))})", fix)
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise RunDirError(path, f"not readable ({first_line(error)})", fix) from None
    measured = []
    for name, score in scores.items():
        metric = metric_named(name)
        columns = _column_names(metric)
        if not set(columns) <= set(table.column_names):
            raise RunDirError(path, f"does not fit the scores beside it ({name})", fix)
        measured.append(MetricRows(metric, _numbers(table, columns, path), score.signature, score.details))
    return measured


def _column_names(metric: Metric) -> list[str]:
    return [f"{metric.name}.{column}" for column in metric.columns]


def _numbers(table: pa.Table, names: list[str], path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Columns side by side. A loss may be infinite, but nothing is missing, and all of it is a number."""
    columns = [table[name] for name in names]
    numeric = all(pa.types.is_integer(column.type) or pa.types.is_floating(column.type) for column in columns)
    rows = np.column_stack([column.to_numpy() for column in columns]) if numeric else None
    if rows is None or np.isnan(rows).any():
        raise RunDirError(path, f"{names[0]} or a column beside it is not all numbers", "evaluate that model again")
    return rows


def write_comparison(run: RunDir, comparison: Comparison, markdown: str) -> None:
    """Write comparison.json, controls.json, strata.json, lengths.json and comparison.md."""
    run.write_json(
        run.lengths_file,
        {
            "references": asdict(comparison.references) if comparison.references else None,
            **{name: asdict(lengths) for name, lengths in comparison.lengths.items()},
        },
    )
    run.write_json(run.controls_file, {control.name: _control_to_json(control) for control in comparison.controls})
    groups = asdict(comparison.groups) if comparison.groups else None
    if groups is not None:
        del groups["largest_question"]
    strata = {
        "leaking_rows": comparison.leaking_rows,
        "groups": groups,
        "strata": [asdict(stratum) for stratum in comparison.strata],
    }
    run.write_json(run.strata_file, strata)
    run.write_json(run.comparison_file, [asdict(row) for row in comparison.rows])
    run.write_text(run.comparison_text_file, markdown)


def read_comparison(run: RunDir) -> Comparison:
    """A finished comparison. Raises RunDirError if there is none, or if this version cannot read it."""
    run.require("compare")
    try:
        return _with_question(run, check_type(Comparison, _comparison_from_json(run)))
    except (AttributeError, KeyError, TypeError, DamagedError) as error:
        why = f" ({error})" if isinstance(error, DamagedError) else ""
        problem = f"it or a file beside it is damaged, or from another version of medtune{why}"
        raise RunDirError(run.comparison_file, problem, ("delete it and run ", Command("compare", run.path))) from None


def _with_question(run: RunDir, comparison: Comparison) -> Comparison:
    groups = comparison.groups
    if groups is None or not groups.largest or not run.is_complete("baseline"):
        return comparison
    questions = (row.question for row in run.read_predictions("baseline") if row.group == groups.largest)
    return replace(comparison, groups=replace(groups, largest_question=next(questions, "")))


def without_question(comparison: Comparison) -> Comparison:
    """The comparison for a text that may be published: no question of the test set names its largest group."""
    groups = comparison.groups
    return comparison if groups is None else replace(comparison, groups=replace(groups, largest_question=""))


def _comparison_from_json(run: RunDir) -> dict[str, Any]:
    lengths = run.read_json(run.lengths_file)
    models: tuple[ModelName, ...] = get_args(ModelName)
    return {
        "rows": [_row_from_json(row) for row in run.read_json(run.comparison_file)],
        "scores": {name: run.read_scores(name) for name in models},
        "references": lengths.pop("references"),
        "lengths": lengths,
        "controls": [_control_from_json(*control) for control in run.read_json(run.controls_file).items()],
        **run.read_json(run.strata_file),
    }


def _row_from_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row as this version has it; medtune 0.1.0 tested every metric, and had another word for "cannot tell"."""
    if row["verdict"] == "not distinguishable":
        row["verdict"] = "cannot tell"
    return {"interval": row["ci95"], **row}


def _control_to_json(control: Control) -> dict[str, Any]:
    against = []
    for row in control.against_tuned:
        values = asdict(row)
        against.append({"metric": values.pop("metric"), "control": values.pop("baseline"), **values})
    scores = {metric: asdict(score) for metric, score in control.scores.items()}
    return {"description": control.description, "scores": scores, "against_tuned": against}


def _control_from_json(name: str, values: dict[str, Any]) -> dict[str, Any]:
    rows = [_row_from_json({"baseline": row.pop("control"), **row}) for row in values["against_tuned"]]
    return {"name": name, **values, "against_tuned": rows}
