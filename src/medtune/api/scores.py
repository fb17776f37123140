"""Comparisons and scores as functions: of a run, or of any tool's predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, overload

from medtune.api.calls import StrPath, reopen
from medtune.api.runs import Run
from medtune.api.shown import Scores, ShownComparison
from medtune.api.working import working
from medtune.config.evaluation import FileSettings, PredictionSettings
from medtune.errors import ConfigError, DataError, show_value
from medtune.records import Prediction
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import Listener

if TYPE_CHECKING:
    import pandas

    from medtune.evaluation.prediction_formats import ColumnNames

# A file that `medtune score` reads, or rows of that form: id, reference, prediction and what else there is.
Predictions: TypeAlias = "StrPath | Sequence[Prediction] | Sequence[Mapping[str, Any]] | pandas.DataFrame"


@overload
def compare(
    target: Run | StrPath, other: Run | StrPath | None = None, *, progress: Listener | None = None
) -> ShownComparison: ...


@overload
def compare(
    target: Predictions,
    other: Predictions,
    *,
    names: tuple[str, str] | None = None,
    primary: Sequence[str] | None = None,
    progress: Listener | None = None,
    **settings: Unpack[PredictionSettings],
) -> ShownComparison: ...


def compare(
    target: Run | Predictions,
    other: Run | Predictions | None = None,
    *,
    names: tuple[str, str] | None = None,
    primary: Sequence[str] | None = None,
    progress: Listener | None = None,
    **settings: Unpack[PredictionSettings],
) -> ShownComparison:
    """Baseline and tuned of a run; or the second against the first of two runs' tuned answers or of any predictions.

    Predictions are files, as for `medtune score`, or rows: `Prediction`s, mappings or a DataFrame. They are measured as
    the `settings` say, with names and values of `evaluation` in a recipe: `metrics`, `bleu_tokenizer`,
    `rouge_tokenizer`, `answers`, `bertscore_model` and `resamples`; `prediction_column`, `reference_column` and
    `id_column` name columns that are called otherwise. The verdict rests on the metrics in `primary`,
    three at most. Raises MedtuneError.

    >>> comparison = medtune.compare("runs/by-hand")
    >>> [row.metric for row in comparison.rows if row.verdict == "better"]
    [...]
    >>> print(comparison.reading[-1])
    These scores measure similarity to the reference answers...
    >>> run = medtune.load_run("runs/demo")
    >>> medtune.compare(run.predictions("baseline"), run.predictions("tuned"), metrics=["bleu"]).rows[0].n
    8
    """
    are_runs = [_is_run(given) for given in (target, other) if given is not None]
    if other is not None and not any(are_runs):
        with working(progress):
            return _compare_rows(target, other, names, primary, settings)
    if other is not None and not all(are_runs):
        fix = "give two of a kind; run.predictions() are a run's answers"
        raise ConfigError("compare", "a run and predictions do not compare", fix)
    if not isinstance(target, Run | str | os.PathLike) or (other is None and os.path.isfile(target)):
        raise ConfigError("compare", "one set of predictions has nothing to be compared with", "give a second")
    if settings or primary or names:
        given = f"primary, {', '.join(PredictionSettings.__annotations__)} and names"
        raise ConfigError("compare", f"{given} go with two sets of predictions, and a run alone")
    opened = reopen(target)
    if other is not None:
        second = reopen(other)  # type: ignore[arg-type]
        with working(progress):
            from medtune.pipeline.compare import compare_runs

            return ShownComparison.of(compare_runs(RunDir(opened.path), RunDir(second.path)))
    with working(progress):
        from medtune.pipeline.run import perform

        perform("compare", RunDir(opened.path))
    return opened.comparison


def score(
    predictions: Predictions,
    *,
    references: StrPath | None = None,
    progress: Listener | None = None,
    **settings: Unpack[PredictionSettings],
) -> Scores:
    """Score any tool's predictions: metric → value, 95 % interval, n and signature. Raises MedtuneError.

    `predictions` are a file or rows, and `settings` say how they are measured, as for `compare`; `references` is a file
    with id and reference, where the predictions have none. Without `metrics`, all that can be had.

    >>> rows = [{"id": "1", "reference": "Gout hurts.", "prediction": "Gout hurts."}]
    >>> medtune.score(rows, metrics=["exact_match"])["exact_match"].value
    1.0
    """
    with working(progress):
        from medtune.evaluation.files import score_predictions

        columns, measured = _apart(settings)
        rows = _read(predictions, "predictions", columns, None if references is None else Path(references))
        return Scores(score_predictions(rows, **measured))


def _is_run(given: object) -> bool:
    return isinstance(given, Run) or (isinstance(given, str | os.PathLike) and os.path.isdir(given))


def _compare_rows(
    first: Predictions,
    second: Predictions,
    names: tuple[str, str] | None,
    primary: Sequence[str] | None,
    settings: PredictionSettings,
) -> ShownComparison:
    from medtune.evaluation import files

    are_two = isinstance(names, tuple | list) and len(names) == 2 and all(isinstance(name, str) for name in names)
    if names is not None and not are_two:
        raise ConfigError(f"names={show_value(names)}", "must be two texts, such as ('before', 'after')")
    columns, measured = _apart(settings)
    before = _read(first, "the first predictions", columns)
    after = _read(second, "the second predictions", columns)
    if names is None and isinstance(first, str | os.PathLike) and isinstance(second, str | os.PathLike):
        names = files.short_names(Path(first), Path(second))
    shown = names or ("first", "second")
    return ShownComparison.of(files.compare_predictions(before, after, shown, primary=primary, **measured))


def _apart(settings: PredictionSettings) -> tuple[ColumnNames, FileSettings]:
    """Names of columns, and how rows are measured."""
    from medtune.evaluation.prediction_formats import ColumnNames

    names = ColumnNames.__dataclass_fields__.keys()
    columns = ColumnNames(**{name: value for name, value in settings.items() if name in names})  # type: ignore[arg-type]
    return columns, {name: value for name, value in settings.items() if name not in names}  # type: ignore[return-value]


def _read(given: Predictions, origin: str, columns: ColumnNames, references: Path | None = None) -> list[Prediction]:
    import pandas

    from medtune.evaluation.prediction_files import predictions_of, read_predictions

    if isinstance(given, str | os.PathLike):
        return read_predictions(Path(given), references, columns)
    if isinstance(given, pandas.DataFrame):
        return predictions_of(given.to_dict("records"), origin, references, columns)  # type: ignore[arg-type]
    if not isinstance(given, Sequence):
        raise DataError(origin, f"{type(given).__name__} is no table", "give a file, a DataFrame or a list of rows")
    rows = [_record(row, f"{origin}: row {i}") for i, row in enumerate(given, 1)]
    return predictions_of(rows, origin, references, columns)


def _record(row: Any, where: str) -> Mapping[str, Any]:
    if isinstance(row, Prediction):
        return asdict(row)
    if not isinstance(row, Mapping):
        raise DataError(where, f"{type(row).__name__} is no row", "give a Prediction or a mapping")
    return row
