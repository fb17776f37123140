"""Scores of any tool's predictions, and two files of them side by side."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from medtune.config.evaluation import EvaluationSection, FileSettings
from medtune.errors import DataError, Option
from medtune.evaluation.comparison import compare_measured
from medtune.evaluation.encoder import Encoder, resolve_encoder
from medtune.evaluation.file_settings import checked_settings, require_measurable
from medtune.evaluation.measurement import TextSettings, answer_lengths, measure_rows, score_rows
from medtune.evaluation.metrics import METRIC_NAMES, MetricRows, metric_named
from medtune.evaluation.prediction_files import align
from medtune.evaluation.significance import Subsamples, group_sizes
from medtune.records import Comparison, Prediction, Score
from medtune.runtime.hardware import choose_device
from medtune.runtime.terminal import one_line
from medtune.storage.hub import fetch_snapshot
from medtune.storage.writing import replacing_file

# Not a run's seed: the files come from anywhere.
SEED = 0
INDEPENDENT = (
    "Note: no row has a group, so all rows count as independent of each other. If several are about one topic or "
    "document, say which in a field or column `group`; intervals are too narrow without it."
)


def score_predictions(
    rows: Sequence[Prediction], *, out: Path | None = None, **settings: Unpack[FileSettings]
) -> dict[str, Score]:
    """Scores of `rows`, written to `out` as JSON if it is given. Raises MedtuneError."""
    checked = checked_settings(settings)
    drawn = Subsamples.draw([row.group for row in rows], splits=checked.resamples, seed=SEED)
    (measured,) = _measure([rows], checked, settings)
    scores = score_rows(measured, drawn)
    _write(out, {metric: asdict(score) for metric, score in scores.items()})
    return scores


def compare_predictions(
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    names: tuple[str, str],
    *,
    primary: Sequence[str] | None = None,
    out: Path | None = None,
    **settings: Unpack[FileSettings],
) -> Comparison:
    """The predictions `after` against those `before`, on the same rows; `primary` as in a recipe.

    Raises MedtuneError.
    """
    checked = checked_settings(settings, primary)
    after = align(before, after, names)
    first_measured, second_measured = _measure([before, after], checked, settings, primary)
    # Either file may bring the groups.
    pairs = list(zip(before, after, strict=True))
    groups = [row.group or other.group for row, other in pairs]
    drawn = Subsamples.draw(groups, splits=checked.resamples, seed=SEED)
    texts = TextSettings.of(checked)
    comparison = Comparison(
        rows=tuple(compare_measured(first_measured, second_measured, drawn, names, primary=primary)),
        scores={"baseline": score_rows(first_measured, drawn), "tuned": score_rows(second_measured, drawn)},
        lengths={"baseline": answer_lengths(before, texts), "tuned": answer_lengths(after, texts)},
        groups=group_sizes(groups, [row.question or other.question for row, other in pairs]),
        names=names,
    )
    _write(out, [asdict(row) for row in comparison.rows])
    return comparison


def _measure(
    files: Sequence[Sequence[Prediction]],
    checked: EvaluationSection,
    settings: FileSettings,
    primary: Sequence[str] | None = None,
) -> list[list[MetricRows]]:
    """What can be measured of each file, or the metrics that `settings` name; `primary` ones in any case."""
    different_tokens = any(len({row.reference_tokens for row in rows}) > 1 for rows in zip(*files, strict=True))
    metrics, encoder_name = settings.get("metrics"), settings.get("bertscore_model")
    for option, names in (("metric", metrics), ("primary", primary)):
        require_measurable(option, names or (), encoder=encoder_name, different_tokens=different_tokens)
    encoder: Encoder | None = None if encoder_name is None else resolve_encoder(encoder_name, fetch_snapshot)
    scored = all(None not in (row.reference_nll, row.reference_tokens) for rows in files for row in rows)
    wanted = metrics or [
        metric.name
        for metric in map(metric_named, METRIC_NAMES)
        if metric.name in (primary or ())
        or ((encoder or not metric.needs_encoder) and (scored or metric.reads_answers))
    ]
    texts, device = TextSettings.of(checked), choose_device().value
    measured = [measure_rows(rows, wanted, encoder=encoder, device=device, caps="", texts=texts) for rows in files]
    if different_tokens:  # bits per byte still compare
        return [[rows for rows in system if not rows.metric.counts_tokens] for system in measured]
    return measured


def short_names(first: Path, second: Path) -> tuple[str, str]:
    """The shortest names that tell the two files apart: a table has room for a word."""
    for one, other in ((first.stem, second.stem), (first.absolute().parent.name, second.absolute().parent.name)):
        if one != other and one and other:
            return one_line(one), one_line(other)
    return one_line(str(first)), one_line(str(second))


def _write(out: Path | None, value: Any) -> None:
    if out is None:
        return
    try:
        with replacing_file(out) as temporary:
            temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(out, f"cannot be written ({error.strerror})", ("choose another ", Option("out"))) from None
