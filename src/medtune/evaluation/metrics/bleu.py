"""Corpus BLEU by sacrebleu: its own defaults (0 to 100, exponential smoothing), and the form of public write-ups.

Counts of cased tokens are kept row by row: a resample is a sum, not a new count. The tokenizer is sacrebleu's for the
script that most of the references' letters are of; public write-ups use 13a throughout.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from sacrebleu.metrics.bleu import BLEU as SACREBLEU
from sacrebleu.metrics.bleu import MAX_NGRAM_ORDER

from medtune.evaluation.letters import count_letters, unread_details
from medtune.evaluation.metrics.bleu_tokenizer import Tokenizer, choose_tokenizer, is_read
from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows, Numbers

Smoothing = Literal["exp", "none"]
COMPAT_TOKENIZER: Tokenizer = "13a"

BLEU_COLUMNS = (
    "predicted_tokens", "reference_tokens",
    *(f"matched_{order}grams" for order in range(1, MAX_NGRAM_ORDER + 1)),
    *(f"predicted_{order}grams" for order in range(1, MAX_NGRAM_ORDER + 1)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BleuParts:
    """The factors of BLEU: score = brevity penalty * geometric mean of the precisions.

    `precisions` are in percent for 1- to 4-grams, smoothed as they enter the score. Lengths count tokens;
    `length_ratio` is predictions over references, 0 where the references are empty.
    """

    score: float
    precisions: tuple[float, float, float, float]
    brevity_penalty: float
    length_ratio: float
    prediction_length: int
    reference_length: int


def bleu_signature(
    smoothing: Smoothing = "exp", tokenizer: Tokenizer = "13a", references: Sequence[Sequence[str]] = (("",),)
) -> str:
    """Return sacrebleu's own signature for rows that have as many `references` as these."""
    metric = SACREBLEU(smooth_method=smoothing, tokenize=tokenizer)
    counts = {len(row) for row in references}
    metric.num_refs = counts.pop() if len(counts) == 1 else -1  # sacrebleu's sign of a number that varies
    return str(metric.get_signature())


def bleu_rows(
    predictions: Sequence[str], references: Sequence[str | Sequence[str]], tokenizer: Tokenizer = "13a"
) -> Numbers:
    """Count each row's matches: shape (n, 10), whose column sums determine the corpus score.

    `references` holds one a row, or several. Columns are BLEU_COLUMNS. Raises ValueError if the two lists differ in
    length.
    """
    metric = SACREBLEU(tokenize=tokenizer)
    rows = np.zeros((len(predictions), len(BLEU_COLUMNS)), dtype=np.float64)
    for row, prediction, given in zip(rows, predictions, references, strict=True):
        wanted = [given] if isinstance(given, str) else given
        score = metric.corpus_score([prediction], [[reference] for reference in wanted])
        row[:] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return rows


def bleu_parts(sums: Numbers, smoothing: Smoothing = "exp") -> BleuParts:
    """Corpus BLEU, 0 to 100, and its factors, of column sums, shape (10,), of what `bleu_rows` counted.

    Summed counts are scored once: the mean of row BLEUs is another, undefined quantity.
    """
    totals = [int(total) for total in sums]
    corpus = SACREBLEU.compute_bleu(
        correct=totals[2 : 2 + MAX_NGRAM_ORDER],
        total=totals[2 + MAX_NGRAM_ORDER :],
        sys_len=totals[0],
        ref_len=totals[1],
        smooth_method=smoothing,
    )
    first, second, third, fourth = (float(precision) for precision in corpus.precisions)
    return BleuParts(
        score=float(corpus.score),
        precisions=(first, second, third, fourth),
        brevity_penalty=float(corpus.bp),
        length_ratio=float(corpus.ratio),
        prediction_length=int(corpus.sys_len),
        reference_length=int(corpus.ref_len),
    )


def _measure(answers: Answers, wanted: Sequence[Metric]) -> list[MetricRows]:
    references = answers.all_references
    flat = [text for row in references for text in row]
    chosen, better = choose_tokenizer(answers.bleu_tokenizer, flat)
    counts = {name: bleu_rows(answers.texts, references, name) for name in dict.fromkeys((chosen, COMPAT_TOKENIZER))}
    letters = count_letters(flat)

    def details(tokenizer: Tokenizer, smoothing: Smoothing) -> dict[str, Any]:
        unread = unread_details(letters, lambda letter: is_read(letter, tokenizer), tokenizer)
        return _details(counts[tokenizer].sum(axis=0), smoothing) | unread

    missing = {"tokenizer_not_installed": better} if better else {}
    compat = bleu_signature("none", COMPAT_TOKENIZER, references) + "|range:0-1"
    return [
        MetricRows(BLEU, counts[chosen], bleu_signature("exp", chosen, references), details(chosen, "exp") | missing),
        MetricRows(COMPAT_BLEU, counts[COMPAT_TOKENIZER], compat, details(COMPAT_TOKENIZER, "none")),
    ]


def _details(sums: Numbers, smoothing: Smoothing) -> dict[str, Any]:
    details = asdict(bleu_parts(sums, smoothing))
    del details["score"]
    return details | {"precisions": [precision / 100 for precision in details["precisions"]]}


BLEU = Metric(
    "bleu",
    "BLEU",
    _measure,
    BLEU_COLUMNS,
    lambda sums: np.array([bleu_parts(row).score for row in sums]),
    digits=2,
    gloss="shared phrases, and brevity",
    is_headline=True,
    margin=1.0,
    hub_name="bleu",
)
COMPAT_BLEU = Metric(
    "compat_bleu",
    "BLEU",
    _measure,
    BLEU_COLUMNS,
    lambda sums: np.array([bleu_parts(row, "none").score / 100 for row in sums]),
    table="compat",
    companion_of="bleu",
)
BLEU_METRICS = (BLEU, COMPAT_BLEU)
