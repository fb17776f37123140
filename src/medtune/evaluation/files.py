"""Scores of any tool's predictions, and two files of them side by side."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any

from medtune.errors import ConfigError, DataError, Option, show_value
from medtune.evaluation.comparison import compare_measured
from medtune.evaluation.encoder import Encoder, resolve_encoder
from medtune.evaluation.measurement import answer_lengths, measure_rows, score_rows
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
_RESAMPLES = 1000
# As for `evaluation.resamples` of a recipe.
_FEWEST_RESAMPLES, _MOST_RESAMPLES = 200, 100_000


def score_predictions(
    rows: Sequence[Prediction],
    *,
    metrics: Sequence[str] | None,
    encoder: str | None,
    resamples: int | None,
    out: Path | None = None,
) -> dict[str, Score]:
    """Scores of `rows`, written to `out` as JSON if it is given. Raises MedtuneError."""
    checked = _checked_resamples(resamples)
    drawn = Subsamples.draw([row.group for row in rows], splits=checked, seed=SEED)
    scores = score_rows(_measure([rows], metrics, encoder)[0], drawn)
    _write(out, {metric: asdict(score) for metric, score in scores.items()})
    return scores


def compare_predictions(
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    names: tuple[str, str],
    *,
    metrics: Sequence[str] | None,
    encoder: str | None,
    resamples: int | None,
    out: Path | None = None,
) -> Comparison:
    """The predictions `after` against those `before`, on the same rows. Raises MedtuneError."""
    checked = _checked_resamples(resamples)
    after = align(before, after, names)
    first_measured, second_measured = _measure([before, after], metrics, encoder)
    # Either file may bring the groups.
    pairs = list(zip(before, after, strict=True))
    groups = [row.group or other.group for row, other in pairs]
    drawn = Subsamples.draw(groups, splits=checked, seed=SEED)
    comparison = Comparison(
        rows=tuple(compare_measured(first_measured, second_measured, drawn, names)),
        scores={"baseline": score_rows(first_measured, drawn), "tuned": score_rows(second_measured, drawn)},
        lengths={"baseline": answer_lengths(before), "tuned": answer_lengths(after)},
        groups=group_sizes(groups, [row.question or other.question for row, other in pairs]),
        names=names,
    )
    _write(out, [asdict(row) for row in comparison.rows])
    return comparison


def _measure(
    files: Sequence[Sequence[Prediction]], metrics: Sequence[str] | None, encoder_name: str | None
) -> list[list[MetricRows]]:
    different_tokens = any(len({row.reference_tokens for row in rows}) > 1 for rows in zip(*files, strict=True))
    _check_metrics(metrics or (), encoder_name, different_tokens)
    encoder: Encoder | None = None if encoder_name is None else resolve_encoder(encoder_name, fetch_snapshot)
    scored = all(None not in (row.reference_nll, row.reference_tokens) for rows in files for row in rows)
    wanted = metrics or [
        metric.name
        for metric in map(metric_named, METRIC_NAMES)
        if (encoder or not metric.needs_encoder) and (scored or metric.reads_answers)
    ]
    measured = [measure_rows(rows, wanted, encoder=encoder, device=choose_device().value, caps="") for rows in files]
    if different_tokens:  # bits per byte still compare
        return [[rows for rows in system if not rows.metric.counts_tokens] for system in measured]
    return measured


def short_names(first: Path, second: Path) -> tuple[str, str]:
    """The shortest names that tell the two files apart: a table has room for a word."""
    for one, other in ((first.stem, second.stem), (first.absolute().parent.name, second.absolute().parent.name)):
        if one != other and one and other:
            return one_line(one), one_line(other)
    return one_line(str(first)), one_line(str(second))


def _check_metrics(metrics: Sequence[str], encoder_name: str | None, different_tokens: bool) -> None:
    if unknown := [metric for metric in metrics if metric not in METRIC_NAMES]:
        raise ConfigError(Option("metric", unknown[0]), "unknown", f"known are {', '.join(METRIC_NAMES)}")
    for metric in map(metric_named, metrics):
        if metric.needs_encoder and encoder_name is None:
            fix = ("name one with ", Option("bertscore_model"))
            raise ConfigError((Option("metric", metric.name), " needs an encoder"), fix=fix)
        if metric.counts_tokens and different_tokens:
            raise ConfigError(
                Option("metric", metric.name),
                "the files count different tokens of the same references, and perplexities of different tokenizers "
                "never compare",
                ("leave ", Option("metric"), " out to get bits per byte"),
            )


def _checked_resamples(resamples: int | None) -> int:
    if resamples is None:
        return _RESAMPLES
    if not isinstance(resamples, Integral) or not _FEWEST_RESAMPLES <= resamples <= _MOST_RESAMPLES:
        raise ConfigError(
            Option("resamples", show_value(resamples)),
            f"must be a whole number from {_FEWEST_RESAMPLES} to {_MOST_RESAMPLES:,}",
        )
    return resamples


def _write(out: Path | None, value: Any) -> None:
    if out is None:
        return
    try:
        with replacing_file(out) as temporary:
            temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(out, f"cannot be written ({error.strerror})", ("choose another ", Option("out"))) from None
