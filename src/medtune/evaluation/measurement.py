"""One system's predictions measured: statistics a row first, then the value that their sums determine; and lengths."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, median

from medtune.errors import ConfigError, DataError
from medtune.evaluation.encoder import Encoder
from medtune.evaluation.metrics import METRICS, Answers, Metric, MetricRows, metric_named, require_known
from medtune.evaluation.metrics.bleu import bleu_parts, bleu_rows
from medtune.evaluation.metrics.metric import Measure
from medtune.evaluation.significance import Subsamples
from medtune.records import Lengths, Prediction, ReferenceLengths, Score


def measure_rows(
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    *,
    encoder: Encoder | None,
    device: str = "cpu",
    caps: str,
    precision: str = "",
) -> list[MetricRows]:
    """Measure each prediction under every metric named, and under what comes with it, standard metrics first.

    Perplexity brings bits per byte; BERTScore its rescaled twin where bert-score ships a baseline; BLEU and ROUGE their
    `compat_` forms, as public write-ups compute them. `encoder` is for BERTScore alone. `caps` says how answers were
    cut (`max_new_tokens:512|decoding:greedy`) and joins the signature of each metric that reads them; `precision`
    (`model:nf4|dtype:float16`) joins every one. Raises DataError if there is nothing to score, ConfigError for an
    unknown metric or a missing encoder.
    """
    _check_request(predictions, metrics, encoder)
    measured_together: dict[Measure, list[Metric]] = {}
    for metric in map(metric_named, dict.fromkeys(metrics)):
        measured_together.setdefault(metric.measure, []).append(metric)
    answers = Answers(predictions, encoder, device)
    measured = [rows for measure, wanted in measured_together.items() for rows in measure(answers, wanted)]
    measured.sort(key=lambda rows: _place(rows.metric, metrics))
    return [replace(rows, signature=_signature(rows, caps, precision)) for rows in measured]


def score_rows(measured: Sequence[MetricRows], subsamples: Subsamples) -> dict[str, Score]:
    """The value of every metric with its 95 % interval, from `subsamples` of the groups of these rows."""
    return {
        rows.name: Score(
            value=rows.value(),
            n=len(rows.rows),
            signature=rows.signature,
            groups=subsamples.group_count,
            ci95=subsamples.interval(rows.values(subsamples.sums(rows.rows))),
            table=rows.metric.table,
            details=dict(rows.details),
        )
        for rows in measured
    }


def _place(metric: Metric, asked: Sequence[str]) -> tuple[bool, int, int]:
    """Standard metrics in the order they were asked for, each followed by its companions; then the others."""
    compat = metric.table == "compat"
    return compat, 0 if compat else asked.index(metric.companion_of or metric.name), METRICS.index(metric)


def _signature(rows: MetricRows, caps: str, precision: str) -> str:
    # A likelihood reads the reference, which no cap cuts.
    settings = [rows.signature, caps if rows.metric.reads_answers else "", precision]
    return "|".join(setting for setting in settings if setting)


def _check_request(predictions: Sequence[Prediction], metrics: Sequence[str], encoder: Encoder | None) -> None:
    if not predictions:
        fix = "the test split or evaluation.max_examples leaves no row"
        raise DataError("there are no predictions to score", fix=fix)
    require_known(metrics)
    for metric in metrics:
        if encoder is None and metric_named(metric).needs_encoder:
            raise ConfigError("evaluation.bertscore_model", f"{metric} needs an encoder", "name one or drop the metric")


def answer_lengths(predictions: Sequence[Prediction]) -> Lengths:
    """Lengths of one system's answers. `predictions` is not empty."""
    counts = bleu_rows([row.prediction for row in predictions], [row.reference for row in predictions])
    tokens = [row.new_tokens for row in predictions if row.new_tokens is not None]
    endings = [row.finish_reason for row in predictions if row.finish_reason is not None]
    counted, ended = len(tokens) == len(predictions), len(endings) == len(predictions)
    return Lengths(
        mean_tokens=mean(tokens) if counted else None,
        median_tokens=float(median(tokens)) if counted else None,
        length_ratio=bleu_parts(counts.sum(axis=0)).length_ratio,
        share_stopped=endings.count("stop") / len(endings) if ended else None,
        share_at_cap=endings.count("length") / len(endings) if ended else None,
    )


def reference_lengths(predictions: Sequence[Prediction], cap: int) -> ReferenceLengths | None:
    """Lengths of the references, end token included, against `cap` tokens; none where they were not measured."""
    tokens = [row.reference_tokens for row in predictions if row.reference_tokens is not None]
    if len(tokens) < len(predictions) or not tokens:
        return None
    over = sum(count > cap for count in tokens) / len(tokens)
    return ReferenceLengths(cap, mean(tokens), float(median(tokens)), over)
