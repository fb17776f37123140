"""All metrics, each an object; a new one is a file in this folder and a line in `METRICS`."""

from collections.abc import Iterable
from difflib import get_close_matches

from medtune.errors import ConfigError
from medtune.evaluation.metrics.bertscore import BERTSCORE_METRICS
from medtune.evaluation.metrics.bleu import BLEU_METRICS
from medtune.evaluation.metrics.exact_match import EXACT_MATCH
from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows
from medtune.evaluation.metrics.perplexity import LIKELIHOOD_METRICS
from medtune.evaluation.metrics.rouge import ROUGE_METRICS

__all__ = [
    "METRICS", "METRIC_NAMES", "Answers", "Metric", "MetricRows", "known_instead", "metric_named", "needs_encoder",
    "require_known",
]  # fmt: skip

# In the order of the tables.
METRICS: tuple[Metric, ...] = (*BLEU_METRICS, *ROUGE_METRICS, *BERTSCORE_METRICS, EXACT_MATCH, *LIKELIHOOD_METRICS)
# Those that can be asked for.
METRIC_NAMES = tuple(metric.name for metric in METRICS if metric.companion_of is None)

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric_named(name: str) -> Metric:
    """Return the metric called `name`; for one of another version of medtune a plain mean, for which higher is better.

    A run directory may hold scores of such a metric.
    """
    return _BY_NAME.get(name) or Metric(name, name, lambda answers, wanted: [])


def require_known(names: Iterable[str]) -> None:
    """Raises ConfigError for a name that nobody can ask for, with the one that it may have been meant for."""
    for name in names:
        if name not in METRIC_NAMES:
            raise ConfigError("evaluation.metrics", f"{name} is unknown", known_instead(name))


def known_instead(name: str) -> str:
    """The metric that an unknown name may have been meant for, and all that are known."""
    alike = get_close_matches(name, METRIC_NAMES, 1)
    meant = f"did you mean {alike[0]}? " if alike else ""
    return f"{meant}known are {', '.join(METRIC_NAMES)}"


def needs_encoder(names: Iterable[str]) -> bool:
    """Say whether a metric among `names` compares vectors of an encoder."""
    return any(metric_named(name).needs_encoder for name in names)
