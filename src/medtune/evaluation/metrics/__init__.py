"""All metrics, each an object; a new one is a file in this folder and a line in `METRICS`."""

from __future__ import annotations

from collections.abc import Iterable

from medtune.evaluation.metrics.bertscore import BERTSCORE_METRICS
from medtune.evaluation.metrics.bleu import BLEU_METRICS
from medtune.evaluation.metrics.exact_match import EXACT_MATCH
from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows
from medtune.evaluation.metrics.perplexity import LIKELIHOOD_METRICS
from medtune.evaluation.metrics.rouge import ROUGE_METRICS

__all__ = ["METRICS", "METRIC_NAMES", "Answers", "Metric", "MetricRows", "metric_named", "needs_encoder"]

# In the order of the tables.
METRICS: tuple[Metric, ...] = (*BLEU_METRICS, *ROUGE_METRICS, *BERTSCORE_METRICS, EXACT_MATCH, *LIKELIHOOD_METRICS)
# Those that can be asked for; `config.schema.MetricName` repeats them, from a layer that cannot import this one.
METRIC_NAMES = tuple(metric.name for metric in METRICS if metric.companion_of is None)

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric_named(name: str) -> Metric:
    """Return the metric called `name`; for one of another version of medtune a plain mean, for which higher is better.

    A run directory may hold scores of such a metric.
    """
    return _BY_NAME.get(name) or Metric(name, name, lambda answers, wanted: [])


def needs_encoder(names: Iterable[str]) -> bool:
    """Say whether a metric among `names` compares vectors of an encoder."""
    return any(metric_named(name).needs_encoder for name in names)
