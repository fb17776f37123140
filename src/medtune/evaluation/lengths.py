"""How long answers are, how they ended, and what the cap does to the references."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median

from medtune.evaluation.metrics.bleu import bleu_parts, bleu_rows
from medtune.records import Lengths, Prediction, ReferenceLengths


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
