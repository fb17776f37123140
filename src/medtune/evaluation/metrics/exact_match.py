"""Exact match after SQuAD's normalisation: the share of answers that equal their reference, 0 to 1.

Written here because transformers 5 dropped `squad_metrics` and no other dependency has it. Source: `normalize_answer`
and `exact_match_score` of SQuAD's official `evaluate-v1.1.py` (Rajpurkar et al. 2016, arXiv:1606.05250). With several
references the best counts, as there. No letter of any script is lost: punctuation and articles are ASCII.
"""

import re
import string
from collections.abc import Sequence

from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows

EXACT_MATCH_SIGNATURE = "exact-match:squad-v1.1|case:lower|punctuation:ascii-removed|articles:removed|aggregate:mean"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match_rows(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return 1.0 for each row whose two sides are equal once normalised, else 0.0.

    Raises ValueError if the two lists differ in length.
    """
    return [
        float(normalize_answer(prediction) == normalize_answer(reference))
        for prediction, reference in zip(predictions, references, strict=True)
    ]


def normalize_answer(text: str) -> str:
    """Lower the text, drop ASCII punctuation, then English articles, then extra white space: in SQuAD's order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _measure(answers: Answers, wanted: Sequence[Metric]) -> list[MetricRows]:
    values = answers.best(exact_match_rows(*answers.pairs))
    return [MetricRows.of_values(EXACT_MATCH, values, EXACT_MATCH_SIGNATURE + answers.best_of)]


EXACT_MATCH = Metric(
    "exact_match",
    "exact match",
    _measure,
    gloss="answers equal to their reference",
    hub_name="exact_match",
    margin=0.01,
)
