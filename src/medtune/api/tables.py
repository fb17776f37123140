"""Predictions as a program has them: a file, records, mappings or a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import ConfigError, DataError, show_value
from medtune.evaluation import files
from medtune.evaluation.prediction_files import predictions_of, read_predictions
from medtune.records import Comparison, Prediction, Score

if TYPE_CHECKING:
    from medtune.api.scores import Predictions
    from medtune.api.stages import StrPath


def score_rows(
    predictions: Predictions,
    references: StrPath | None,
    metrics: Sequence[str] | None,
    encoder: str | None,
    resamples: int,
) -> dict[str, Score]:
    """Scores of one set of predictions. Raises MedtuneError."""
    rows = _read(predictions, "predictions", None if references is None else Path(references))
    return files.score_predictions(rows, metrics=metrics, encoder=encoder, resamples=resamples)


def compare_rows(
    first: Predictions,
    second: Predictions,
    *,
    metrics: Sequence[str] | None,
    encoder: str | None,
    resamples: int | None,
    names: tuple[str, str] | None,
) -> Comparison:
    """The second set of predictions against the first. Raises MedtuneError."""
    if names is not None and not _are_two_texts(names):
        raise ConfigError(f"names={show_value(names)}", "must be two texts, such as ('before', 'after')")
    before, after = _read(first, "the first predictions"), _read(second, "the second predictions")
    if names is None and isinstance(first, str | os.PathLike) and isinstance(second, str | os.PathLike):
        names = files.short_names(Path(first), Path(second))
    return files.compare_predictions(
        before, after, names or ("first", "second"), metrics=metrics, encoder=encoder, resamples=resamples
    )


def _are_two_texts(names: object) -> bool:
    return isinstance(names, tuple | list) and len(names) == 2 and all(isinstance(name, str) for name in names)


def _read(given: Predictions, origin: str, references: Path | None = None) -> list[Prediction]:
    import pandas

    if isinstance(given, str | os.PathLike):
        return read_predictions(Path(given), references)
    if isinstance(given, pandas.DataFrame):
        return predictions_of(given.to_dict("records"), origin, references)  # type: ignore[arg-type]
    if not isinstance(given, Sequence):
        raise DataError(origin, f"{type(given).__name__} is no table", "give a file, a DataFrame or a list of rows")
    return predictions_of([_record(row, f"{origin}: row {i}") for i, row in enumerate(given, 1)], origin, references)


def _record(row: Any, where: str) -> Mapping[str, Any]:
    if isinstance(row, Prediction):
        return {name: getattr(row, name) for name in Prediction.__slots__}
    if not isinstance(row, Mapping):
        raise DataError(where, f"{type(row).__name__} is no row", "give a Prediction or a mapping")
    return row
