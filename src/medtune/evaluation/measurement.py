"""One system's predictions measured: statistics a row first, then the value that their sums determine; and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any, Literal

import numpy as np

from medtune.config.evaluation import EvaluationSection
from medtune.errors import ConfigError, DataError
from medtune.evaluation.answer_text import Separated, separate_rows
from medtune.evaluation.encoder import Encoder
from medtune.evaluation.metrics import METRICS, Answers, Metric, MetricRows, metric_named, require_known
from medtune.evaluation.metrics.bleu import bleu_parts, bleu_rows
from medtune.evaluation.metrics.bleu_tokenizer import choose_tokenizer
from medtune.evaluation.metrics.metric import Measure
from medtune.evaluation.significance import Subsamples
from medtune.records import Lengths, Prediction, ReferenceLengths, Score


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How texts are read: by which tokenizers of BLEU and ROUGE, and whether what is not the answer is left out."""

    bleu_tokenizer: str = "auto"
    rouge_tokenizer: str = "auto"
    answers: Literal["separated", "raw"] = "separated"

    @classmethod
    def of(cls, evaluation: EvaluationSection) -> TextSettings:
        """As a recipe has them."""
        return cls(evaluation.bleu_tokenizer, evaluation.rouge_tokenizer, evaluation.answers)

    def read(self, predictions: Sequence[Prediction]) -> Separated:
        """The rows to measure."""
        return Separated(predictions) if self.answers == "raw" else separate_rows(predictions)


def measure_rows(
    predictions: Sequence[Prediction],
    metrics: Sequence[str],
    *,
    encoder: Encoder | None,
    device: str = "cpu",
    caps: str,
    precision: str = "",
    texts: TextSettings = TextSettings(),
) -> list[MetricRows]:
    """Measure each prediction under every metric named, and under what comes with it, standard metrics first.

    Perplexity brings bits per byte; BERTScore its rescaled twin where bert-score ships a baseline; BLEU and ROUGE their
    `compat_` forms, as public write-ups compute them. `encoder` is for BERTScore alone. `caps` says how answers were
    cut (`max_new_tokens:512|decoding:greedy`) and joins the signature of each metric that reads them; `precision`
    (`model:nf4|dtype:float16`) joins every one. Metrics that read answers read them as `texts` says, and their details
    count what was left out. Raises DataError if there is nothing to score, ConfigError for an unknown metric, a missing
    encoder or a tokenizer that is not installed.
    """
    _check_request(predictions, metrics, encoder)
    measured_together: dict[Measure, list[Metric]] = {}
    for metric in map(metric_named, dict.fromkeys(metrics)):
        measured_together.setdefault(metric.measure, []).append(metric)
    read = texts.read(predictions)
    answers = Answers(read.rows, encoder, device, texts.bleu_tokenizer, texts.rouge_tokenizer)
    whole = Answers(predictions, encoder, device)  # what a likelihood is of
    measured: list[MetricRows] = []
    for measure, wanted in measured_together.items():
        measured += measure(answers if wanted[0].reads_answers else whole, wanted)
    measured = in_table_order(measured, metrics)
    settings = caps if texts.answers == "separated" else "|".join(filter(None, (caps, "answers:raw")))
    return [
        replace(
            rows,
            signature=_signature(rows, settings, precision),
            details={**rows.details, **(read.details if rows.metric.reads_answers else {})},
        )
        for rows in measured
    ]


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


def in_table_order(measured: Sequence[MetricRows], metrics: Sequence[str]) -> list[MetricRows]:
    """Standard metrics in the order they were asked for in `metrics`, each followed by its companions; then others."""
    return sorted(measured, key=lambda rows: _place(rows.metric, metrics))


def as_told(rows: MetricRows) -> list[Any]:
    """What one process tells another of its statistics, in JSON's types."""
    return [rows.name, rows.rows.tolist(), rows.signature, dict(rows.details)]


def as_heard(told: Sequence[Any]) -> MetricRows:
    """The statistics that `as_told` told, number for number."""
    name, rows, signature, details = told
    return MetricRows(metric_named(name), np.array(rows, dtype=np.float64), signature, details)


def share_of_metrics(metrics: Sequence[str], rank: int, processes: int) -> list[str]:
    """Those of `metrics` that the process of this rank measures, when so many share them.

    The first process has those that need an encoder, which may not be on other machines; the others deal out the rest,
    metrics that are measured together staying so.
    """
    if processes == 1:
        return list(metrics)
    together = list(
        dict.fromkeys(metric_named(name).measure for name in metrics if not metric_named(name).needs_encoder)
    )
    holder = {measure: 1 + place % (processes - 1) for place, measure in enumerate(together)}
    return [name for name in metrics if holder.get(metric_named(name).measure, 0) == rank]


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


def answer_lengths(predictions: Sequence[Prediction], texts: TextSettings = TextSettings()) -> Lengths:
    """Lengths of one system's answers; words are BLEU's, as `texts` says. `predictions` is not empty."""
    answers = Answers(texts.read(predictions).rows)
    tokenizer, _ = choose_tokenizer(texts.bleu_tokenizer, answers.pairs[1])
    counts = bleu_rows(answers.texts, answers.all_references, tokenizer)
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
