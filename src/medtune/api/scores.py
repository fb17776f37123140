"""Comparisons and scores as functions: of a run, or of any tool's predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from medtune.api.runs import Run
from medtune.api.shown import ShownComparison
from medtune.api.stages import StrPath, reopen
from medtune.api.working import working
from medtune.errors import ConfigError
from medtune.records import Prediction, Score
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import Listener

if TYPE_CHECKING:
    import pandas

# A file that `medtune score` reads, or rows of that form: id, reference, prediction and what else there is.
Predictions: TypeAlias = "StrPath | Sequence[Prediction] | Sequence[Mapping[str, Any]] | pandas.DataFrame"


@overload
def compare(target: Run | StrPath, *, progress: Listener | None = None) -> ShownComparison: ...


@overload
def compare(
    target: Predictions,
    other: Predictions,
    *,
    metrics: Sequence[str] | None = None,
    bertscore_model: str | None = None,
    resamples: int | None = None,
    names: tuple[str, str] | None = None,
    progress: Listener | None = None,
) -> ShownComparison: ...


def compare(
    target: Run | Predictions,
    other: Predictions | None = None,
    *,
    metrics: Sequence[str] | None = None,
    bertscore_model: str | None = None,
    resamples: int | None = None,
    names: tuple[str, str] | None = None,
    progress: Listener | None = None,
) -> ShownComparison:
    """Baseline and tuned of a run side by side; or two sets of predictions of any tools, the second against the first.

    Predictions are files, as for `medtune score`, or rows: `Prediction`s, mappings or a DataFrame. `resamples` are 1000
    unless given, 500 to 100,000. Raises MedtuneError.

    >>> comparison = medtune.compare("runs/by-hand")
    >>> [row.metric for row in comparison.rows if row.verdict == "better"]
    [...]
    >>> print(comparison.reading[-1])
    These scores measure similarity to the reference answers...
    >>> run = medtune.load_run("runs/demo")
    >>> medtune.compare(run.predictions("baseline"), run.predictions("tuned"), metrics=["bleu"]).rows[0].n
    8
    """
    if other is not None and not isinstance(target, Run):
        from medtune.api.tables import compare_rows

        with working(progress):
            return ShownComparison.of(
                compare_rows(target, other, metrics=metrics, encoder=bertscore_model, resamples=resamples, names=names)
            )
    if not isinstance(target, Run | str | os.PathLike) or (other is None and os.path.isfile(target)):
        raise ConfigError("compare", "one set of predictions has nothing to be compared with", "give a second")
    if other is not None or metrics or bertscore_model or names or resamples is not None:
        problem = "metrics, bertscore_model, resamples and names go with two sets of predictions, and a run alone"
        raise ConfigError("compare", problem)
    opened = reopen(target)
    with working(progress):
        from medtune.pipeline.run import perform

        perform("compare", RunDir(opened.path))
    return opened.comparison


def score(
    predictions: Predictions,
    *,
    references: StrPath | None = None,
    metrics: Sequence[str] | None = None,
    bertscore_model: str | None = None,
    resamples: int = 1000,
    progress: Listener | None = None,
) -> dict[str, Score]:
    """Score any tool's predictions: metric → value, 95 % interval, n and signature. Raises MedtuneError.

    `predictions` are a file or rows, as for `compare`; `references` is a file with id and reference, where the
    predictions have none. Without `metrics`, all that can be had.

    >>> rows = [{"id": "1", "reference": "Gout hurts.", "prediction": "Gout hurts."}]
    >>> medtune.score(rows, metrics=["exact_match"])["exact_match"].value
    1.0
    """
    from medtune.api.tables import score_rows

    with working(progress):
        return score_rows(predictions, references, metrics, bertscore_model, resamples)
