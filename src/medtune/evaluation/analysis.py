"""Sentences on several metrics together: likelihood, phrase match and length, words and meaning."""

import math
from collections.abc import Mapping
from dataclasses import fields

from medtune.evaluation.formatting import format_count, format_value, metric_label
from medtune.evaluation.metrics import metric_named
from medtune.evaluation.metrics.bleu import BleuParts
from medtune.records import Comparison, ComparisonRow, ModelName

_LIKELIHOOD = "perplexity"
# Of ROUGE's forms the one that a verdict on words goes by.
_WORDS, _MEANING = "rougeL", "bertscore_f1"


def analyse(comparison: Comparison, names: tuple[str, str]) -> list[str]:
    """Return the sentences, each of them only where its metrics were measured; `names` as a sentence has them."""
    rows = {row.metric: row for row in comparison.rows}
    sentences = []
    if _LIKELIHOOD in rows:
        sentences.append(_read_perplexity(rows[_LIKELIHOOD], names))
    if "bleu" in rows:
        before, after = _parts(comparison, "baseline"), _parts(comparison, "tuned")
        if before and after:
            sentences.append(_read_bleu_parts(before, after))
    if _WORDS in rows and _MEANING in rows:
        sentences.append(_read_words_and_meaning(rows))
    if "exact_match" in rows:
        sentences.append(_read_exact_match(rows["exact_match"], names))
    return sentences + _read_lengths(comparison)


def _read_perplexity(row: ComparisonRow, names: tuple[str, str]) -> str:
    name = "Perplexity of the reference answers"
    before, after = format_value(row.metric, row.baseline), format_value(row.metric, row.tuned)
    if math.isnan(row.difference):
        return f"{name} cannot be compared: {before} for {names[0]}, {after} for {names[1]}."
    if before == after:
        return f"{name} did not change at the digits shown ({after})."
    smaller, larger = sorted((row.baseline, row.tuned))
    # Without a factor where one side overflowed: the ratio of a number and infinity is neither.
    factor = f", by a factor of {larger / smaller:.2f}" if smaller > 0 and math.isfinite(larger) else ""
    if row.verdict not in ("better", "worse"):  # nothing rose that chance explains
        return f"{name} went from {before} to {after}{factor}, which is not told from chance."
    verb, likelihood = ("fell", "more") if row.difference < 0 else ("rose", "less")
    return (
        f"{name} {verb} from {before} to {after}{factor}: {names[1]} gives the references' wording {likelihood} "
        "probability, with no generated text involved."
    )


def _parts(comparison: Comparison, side: ModelName) -> BleuParts | None:
    score = comparison.scores[side].get("bleu")
    if score is None or "precisions" not in score.details:
        return None
    precisions = tuple(100 * float(precision) for precision in score.details["precisions"])
    values = {**score.details, "score": score.value, "precisions": precisions}
    return BleuParts(**{part.name: values[part.name] for part in fields(BleuParts)})


def _read_bleu_parts(before: BleuParts, after: BleuParts) -> str:
    """Split BLEU = brevity penalty * geometric mean of precisions into what length and what phrase match did."""
    sentence = (
        f"In BLEU, the precisions of 1- to 4-grams went from {_percents(before)} to {_percents(after)}, "
        f"the brevity penalty went from {before.brevity_penalty:.3f} to {after.brevity_penalty:.3f} (1 is none), and "
        f"the answers' length from {before.length_ratio:.2f} to {after.length_ratio:.2f} times the references'"
    )
    # Below what is shown of BLEU its factors are noise: a penalty of 1e-14 would be recovered 1e13-fold.
    if min(before.score, after.score) < 0.01:
        return f"{sentence}; a BLEU of 0 cannot be split into factors."
    length = after.brevity_penalty / before.brevity_penalty
    match = (after.score / before.score) / length
    return f"{sentence}: answer length multiplied BLEU by {length:.2f}, phrase match by {match:.2f}."


def _percents(parts: BleuParts) -> str:
    return "/".join(f"{precision:.1f}" for precision in parts.precisions) + " %"


def _read_exact_match(row: ComparisonRow, names: tuple[str, str]) -> str:
    before, after = round(row.baseline * row.n), round(row.tuned * row.n)
    if before == after == 0:
        return "No answer of either model equals its reference, case, punctuation and articles aside."
    return (
        f"{before} of {names[0]}'s and {after} of {names[1]}'s {format_count(row.n, 'answer')} "
        f"{'equals its' if row.n == 1 else 'equal their'} reference, case, punctuation and articles aside."
    )


def _read_words_and_meaning(rows: Mapping[str, ComparisonRow]) -> str:
    """Set overlap of words beside similarity in an encoder's vectors: they can part."""
    words, meaning = rows[_WORDS], rows[_MEANING]
    moves = " and ".join(
        f"{metric_label(row.metric)} ({metric_named(row.metric).gloss}) went from "
        f"{format_value(row.metric, row.baseline)} to {format_value(row.metric, row.tuned)}"
        for row in (words, meaning)
    )
    course = {"better": 1, "worse": -1}
    if not (words.is_primary and meaning.is_primary):
        return f"{moves}."
    return f"{moves}: {_CONCLUSIONS[course.get(words.verdict, 0), course.get(meaning.verdict, 0)]}."


_CONCLUSIONS = {
    (1, 1): "the answers came closer to the references in their words, and by the encoder's vectors",
    (1, 0): "more of the references' words, without answers that the encoder finds closer",
    (1, -1): "more of the references' words in answers that the encoder finds further off",
    (0, 1): "closer by the encoder's vectors, without more of the references' words",
    (0, 0): "neither words nor the encoder's vectors moved by more than chance would",
    (0, -1): "further off by the encoder's vectors, with as many of the references' words",
    (-1, 1): "fewer of the references' words, in answers that the encoder finds closer",
    (-1, 0): "fewer of the references' words, in answers that the encoder finds as close",
    (-1, -1): "the answers moved away from the references in their words, and by the encoder's vectors",
}


def _read_lengths(comparison: Comparison) -> list[str]:
    """Say how long the answers are and how many the cap cut."""
    before, after = comparison.lengths["baseline"], comparison.lengths["tuned"]
    sentences = []
    if before.mean_tokens is not None and after.mean_tokens is not None:
        wanted = f"; the references have {comparison.references.mean_tokens:.1f}" if comparison.references else ""
        sentences.append(
            f"Answers took {before.mean_tokens:.1f} new tokens on average before and {after.mean_tokens:.1f} "
            f"after{wanted}."
        )
    if before.share_at_cap is not None and after.share_at_cap is not None:
        sentences.append(
            f"The cap on new tokens cut {before.share_at_cap:.1%} of the answers before and {after.share_at_cap:.1%} "
            "after; the others stopped by themselves."
        )
    return sentences
