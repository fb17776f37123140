"""The comparison in plain sentences, each computed from the numbers; none says anything about medicine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medtune.evaluation.bleu import BleuParts, bleu_parts, bleu_rows
from medtune.evaluation.comparison import judge, require_same_rows
from medtune.evaluation.formatting import format_value
from medtune.records import ComparisonRow, Prediction

# Above this share of cut answers the overlap metrics measure the cap as much as the model.
CUT_SHARE_WARNING = 0.05

_NAMES = {"bleu": "BLEU", "rougeL": "ROUGE-L F1", "bertscore_f1": "BERTScore F1"}


def read_comparison(
    baseline: Sequence[Prediction], tuned: Sequence[Prediction], rows: Sequence[ComparisonRow]
) -> list[str]:
    """Return the reading of `rows`, which compare the two models' predictions, a sentence or two an entry.

    Metrics that `rows` lacks are passed over. Raises DataError if the two sides are not the same questions.
    """
    require_same_rows(baseline, tuned)
    by_metric = {row.metric: row for row in rows}
    n = len(baseline)
    sentences = [f"Both models answered the same {n} question{'' if n == 1 else 's'}."]
    if row := by_metric.get("perplexity"):
        sentences.append(_read_perplexity(row))
    if row := by_metric.get("bleu"):
        sentences.append(_read_direction(row))
        sentences.append(_read_bleu_parts(_parts(baseline), _parts(tuned)))
    sentences += [_read_direction(by_metric[metric]) for metric in ("rougeL", "bertscore_f1") if metric in by_metric]
    if row := by_metric.get("exact_match"):
        sentences.append(_read_exact_match(row))
    if n:
        sentences += _read_lengths(baseline, tuned)
    sentences.append(
        "These scores measure similarity to the reference answers: overlap rewards the references' register and stock "
        "phrases, and is no measure of medical correctness."
    )
    return sentences


def _read_direction(row: ComparisonRow) -> str:
    name = _NAMES[row.metric]
    before, after = format_value(row.metric, row.baseline), format_value(row.metric, row.tuned)
    verdict = judge(row)
    if verdict == "undefined":
        return f"{name} cannot be compared: {before} for the baseline, {after} for the tuned model."
    if verdict == "equal":
        return f"{name} did not change at the digits shown ({after})."
    return f"{name} {'rose' if row.difference > 0 else 'fell'} from {before} to {after}."


def _read_perplexity(row: ComparisonRow) -> str:
    name = "Perplexity of the reference answers"
    before, after = format_value(row.metric, row.baseline), format_value(row.metric, row.tuned)
    verdict = judge(row)
    if verdict == "undefined":
        return f"{name} cannot be compared: {before} for the baseline, {after} for the tuned model."
    if verdict == "equal":
        return f"{name} did not change at the digits shown ({after})."
    smaller, larger = sorted((row.baseline, row.tuned))
    # Without a factor where one side overflowed: the ratio of a number and infinity is neither.
    factor = f", by a factor of {larger / smaller:.2f}" if smaller > 0 and math.isfinite(larger) else ""
    verb, likelihood = ("fell", "more") if verdict == "better" else ("rose", "less")
    return (
        f"{name} {verb} from {before} to {after}{factor}: the tuned model gives the references' wording {likelihood} "
        "probability, with no generated text involved."
    )


def _parts(predictions: Sequence[Prediction]) -> BleuParts:
    return bleu_parts(bleu_rows([row.prediction for row in predictions], [row.reference for row in predictions]))


def _read_bleu_parts(before: BleuParts, after: BleuParts) -> str:
    """Split BLEU = brevity penalty * geometric mean of precisions into what length and what phrase match did."""
    changes = [round(new - old, 1) for old, new in zip(before.precisions, after.precisions, strict=True)]
    if not any(changes):
        course = "did not change"
    elif all(change >= 0 for change in changes):
        course = "rose"
    elif all(change <= 0 for change in changes):
        course = "fell"
    else:
        course = "moved unevenly"
    sentence = (
        f"In BLEU, the precisions of 1- to 4-grams {course} ({_percents(before)} before, {_percents(after)} after), "
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


def _read_exact_match(row: ComparisonRow) -> str:
    if not (math.isfinite(row.baseline) and math.isfinite(row.tuned)):
        return f"Exact matches cannot be compared: {row.baseline} for the baseline, {row.tuned} for the tuned model."
    before, after = round(row.baseline * row.n), round(row.tuned * row.n)
    if before == after == 0:
        return "No answer of either model equals its reference, case, punctuation and articles aside."
    return (
        f"{before} of the baseline's and {after} of the tuned model's {row.n} answers equal their reference, case, "
        "punctuation and articles aside."
    )


def _read_lengths(baseline: Sequence[Prediction], tuned: Sequence[Prediction]) -> list[str]:
    """Say how long the answers are and how many the cap cut; warn where that is too many to trust overlap."""
    tokens = [sum(row.new_tokens for row in side) / len(side) for side in (baseline, tuned)]
    cut = [sum(row.finish_reason == "length" for row in side) / len(side) for side in (baseline, tuned)]
    sentences = [
        f"Answers took {tokens[0]:.1f} new tokens on average before and {tokens[1]:.1f} after.",
        f"The cap on new tokens cut {cut[0]:.1%} of the answers before and {cut[1]:.1%} after.",
    ]
    if max(cut) > CUT_SHARE_WARNING:
        sides = [
            name for name, share in zip(("baseline", "tuned model"), cut, strict=True) if share > CUT_SHARE_WARNING
        ]
        sentences.append(
            f"Warning: the cap cut more than {CUT_SHARE_WARNING:.0%} of the answers of the {' and the '.join(sides)}, "
            "so the overlap scores measure the cap too; raise generation.max_new_tokens and evaluate again."
        )
    return sentences
