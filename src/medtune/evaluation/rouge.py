"""ROUGE-1, -2, -L and -Lsum: mean F1 over rows, 0 to 1, by Google's rouge-score with its Porter stemmer.

Its tokenizer lowers the text and keeps `a-z` and `0-9` only, so other scripts score 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

ROUGE_METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge_signature(metric: str) -> str:
    """Return how `metric` is measured; ROUGE-Lsum also names its sentence splitter."""
    signature = f"rouge-score:{version('rouge-score')}|metric:{metric}|stemmer:yes|aggregate:mean-f1"
    if metric == "rougeLsum":
        signature += f"|sentences:sentencex:{version('sentencex')}"
    return signature


def rouge_f1(predictions: Sequence[str], references: Sequence[str], metrics: Sequence[str]) -> dict[str, list[float]]:
    """Return each row's F1, 0 to 1, under every metric named in `metrics` (of ROUGE_METRICS).

    Raises ValueError if the two lists differ in length or a metric is unknown.
    """
    from rouge_score.rouge_scorer import RougeScorer  # nltk comes with it: two seconds

    if unknown := set(metrics) - set(ROUGE_METRICS):
        raise ValueError(f"unknown ROUGE metrics: {sorted(unknown)}")
    # Apart, because only Lsum reads sentence-split text; the others share one tokenisation of the raw text.
    on_text = RougeScorer([metric for metric in metrics if metric != "rougeLsum"], use_stemmer=True)
    on_sentences = RougeScorer([metric for metric in metrics if metric == "rougeLsum"], use_stemmer=True)
    values: dict[str, list[float]] = {metric: [] for metric in metrics}
    for prediction, reference in zip(predictions, references, strict=True):
        scores: dict[str, Any] = {}
        if on_text.rouge_types:
            scores |= on_text.score(target=reference, prediction=prediction)
        if on_sentences.rouge_types:
            scores |= on_sentences.score(
                target=one_sentence_a_line(reference), prediction=one_sentence_a_line(prediction)
            )
        for metric, score in scores.items():
            values[metric].append(float(score.fmeasure))
    return values


def one_sentence_a_line(text: str) -> str:
    """Split English `text` into sentences, one a line; its own line breaks stay breaks, empty sentences go.

    ROUGE-Lsum unites the longest common subsequences of *lines*, so unsplit text scores lower: 0.264 against 0.319 on
    one set of answers.
    """
    from sentencex import segment

    sentences = (sentence.strip() for line in text.splitlines() for sentence in segment("en", line))
    return "\n".join(sentence for sentence in sentences if sentence)
