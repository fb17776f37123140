"""The comparison in plain sentences, each computed from the numbers; none says anything about medicine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medtune.data.leakage import KIND_NAMES
from medtune.evaluation.bleu import BleuParts
from medtune.evaluation.controls import CEILING
from medtune.evaluation.formatting import (
    HEADLINE_METRICS,
    METRIC_NAMES,
    format_count,
    format_difference,
    format_interval,
    format_value,
)
from medtune.evaluation.significance import FEW_GROUPS
from medtune.records import Comparison, ComparisonRow, Control, ModelName, Verdict

# Above this share of cut references or answers, overlap scores measure the cap as much as the model.
CUT_SHARE_WARNING = 0.05
# How a sentence begins that names what tuning had to beat and did not.
NOT_BEATEN = "Tuning does not beat"
_LIKELIHOOD = "perplexity"


def read_comparison(comparison: Comparison) -> list[str]:
    """Return the reading, most important first, a sentence or two an entry: verdict, controls, warnings, details."""
    rows = {row.metric: row for row in comparison.rows}
    names = _with_article(comparison.names[0]), _with_article(comparison.names[1])
    sentences = [
        *_read_verdict(comparison),
        *_read_controls(comparison.controls),
        *_read_unclear(comparison.rows),
        *_warnings(comparison),
    ]
    if _LIKELIHOOD in rows:
        sentences.append(_read_perplexity(rows[_LIKELIHOOD], names))
    if "bleu" in rows:
        before, after = _parts(comparison, "baseline"), _parts(comparison, "tuned")
        if before and after:
            sentences.append(_read_bleu_parts(before, after))
    if "exact_match" in rows:
        sentences.append(_read_exact_match(rows["exact_match"], names))
    sentences += _read_lengths(comparison)
    sentences.append(
        "These scores measure similarity to the reference answers: overlap rewards the references' register and stock "
        "phrases, and is no measure of medical correctness."
    )
    return sentences


def _read_verdict(comparison: Comparison) -> list[str]:
    rows = [row for row in comparison.rows if row.table == "standard"]
    if not rows:
        return []
    before, after = map(_with_article, comparison.names)
    where = f"On {format_count(rows[0].n, 'question')} in {format_count(rows[0].groups, 'group')}"
    parts = []
    words: dict[Verdict, str] = {
        "better": "better by",
        "worse": "worse by",
        "not distinguishable": "not distinguishable by",
        "undefined": "not comparable by",
    }
    for verdict, phrase in words.items():
        if metrics := [METRIC_NAMES[row.metric] for row in rows if row.verdict == verdict]:
            parts.append(f"{phrase} {_listed(metrics)}")
    return [f"{where} {after}, against {before}, is {'; '.join(parts)} (Holm-corrected p < 0.05)."]


def _read_unclear(rows: Sequence[ComparisonRow]) -> list[str]:
    """For every headline metric without a verdict: the difference, its interval, and the n that it would take."""
    sentences = []
    for row in _headline([row for row in rows if row.table == "standard"]):
        if row.verdict != "not distinguishable":
            continue
        interval = f", 95 % interval {format_interval(row.metric, row.ci95)}" if row.ci95 else ""
        needed = ""
        if row.rows_needed is not None and row.rows_needed > row.n:
            needed = f"; a true difference of that size would take about {row.rows_needed:,} rows to find"
        difference = format_difference(row.metric, row.difference)
        sentences.append(
            f"{_capital(METRIC_NAMES[row.metric])} differs by {difference}{interval}, "
            f"which {format_count(row.n, 'row')} cannot tell from chance{needed}."
        )
    return sentences


def _read_controls(controls: Sequence[Control]) -> list[str]:
    """What tuning did not beat comes first; a control that it beats by every headline metric is named last."""
    lost, beaten = [], []
    for control in controls:
        rows = _headline([row for row in control.against_tuned if row.table == "standard"])
        if control.name == CEILING or not rows:
            continue
        unbeaten = [row for row in rows if row.verdict != "better"]
        if unbeaten:
            figures = ", ".join(
                f"{METRIC_NAMES[row.metric]} {format_value(row.metric, row.tuned)} against "
                f"{format_value(row.metric, row.baseline)} ({row.verdict})"
                for row in unbeaten
            )
            lost.append(f"{NOT_BEATEN} {control.description}: {figures}.")
        else:
            beaten.append(control.description)
    sentences = lost
    if beaten:
        sentences.append(f"By every headline metric tuning beats {_listed(beaten)}.")
    for control in controls:
        rows = _headline([row for row in control.against_tuned if row.table == "standard"])
        if control.name == CEILING and rows:
            ceiling = _listed([f"{METRIC_NAMES[row.metric]} {format_value(row.metric, row.baseline)}" for row in rows])
            sentences.append(f"The ceiling under this cap, {control.description}, scores {ceiling}.")
    return sentences


def _warnings(comparison: Comparison) -> list[str]:
    warnings = []
    rows = comparison.rows
    if rows and rows[0].groups < FEW_GROUPS:
        warnings.append(
            f"Warning: the rows fall into {format_count(rows[0].groups, 'group')}, which is few for a bootstrap; take "
            "intervals and p-values as rough, and test on more topics."
        )
    references = comparison.references
    if references is not None and references.share_over_cap > CUT_SHARE_WARNING:
        warnings.append(
            f"Warning: the cap of {references.cap} new tokens cuts {references.share_over_cap:.1%} of the references, "
            "so the overlap scores measure the cap too; raise generation.max_new_tokens and evaluate again."
        )
    if comparison.leaking_rows and rows:
        shares = [f"{KIND_NAMES[kind]} {count / rows[0].n:.1%}" for kind, count in comparison.leaking_rows.items()]
        free = any(stratum.value == "does not leak" for stratum in comparison.strata)
        where = "strata.json has the scores without them" if free else "no test row is free of them"
        warnings.append(
            f"Warning: test rows share things with training rows ({_listed(shares)} of the test rows), so that "
            f"remembering passes for answering; {where}."
        )
    return warnings


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
    verb, likelihood = ("fell", "more") if row.difference < 0 else ("rose", "less")
    return (
        f"{name} {verb} from {before} to {after}{factor}: {names[1]} gives the references' wording {likelihood} "
        "probability, with no generated text involved."
    )


def _parts(comparison: Comparison, side: ModelName) -> BleuParts | None:
    score = comparison.scores[side].get("bleu")
    if score is None or "precisions" not in score.details:
        return None
    details = score.details
    first, second, third, fourth = (100 * float(precision) for precision in details["precisions"])
    return BleuParts(
        score.value,
        (first, second, third, fourth),
        details["brevity_penalty"],
        details["length_ratio"],
        details["prediction_length"],
        details["reference_length"],
    )


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


def _read_exact_match(row: ComparisonRow, names: tuple[str, str]) -> str:
    before, after = round(row.baseline * row.n), round(row.tuned * row.n)
    if before == after == 0:
        return "No answer of either model equals its reference, case, punctuation and articles aside."
    return (
        f"{before} of {names[0]}'s and {after} of {names[1]}'s {format_count(row.n, 'answer')} "
        f"{'equals its' if row.n == 1 else 'equal their'} reference, case, punctuation and articles aside."
    )


def _read_lengths(comparison: Comparison) -> list[str]:
    """Say how long the answers are and how many the cap cut; warn where that is too many to trust overlap."""
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
    shares = zip(comparison.names, (before.share_at_cap, after.share_at_cap), strict=True)
    over = [_with_article(name) for name, share in shares if share is not None and share > CUT_SHARE_WARNING]
    if over:
        sentences.append(
            f"Warning: the cap cut more than {CUT_SHARE_WARNING:.0%} of the answers of {' and '.join(over)}, "
            "so the overlap scores measure the cap too; raise generation.max_new_tokens and evaluate again."
        )
    return sentences


def _headline(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The headline metrics among `rows`; all of them where none was measured."""
    return [row for row in rows if row.metric in HEADLINE_METRICS] or list(rows)


def _listed(items: Sequence[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    separator = "; " if any("," in item for item in items) else ", "
    return f"{separator.join(items[:-1])} and {items[-1]}"


def _with_article(name: str) -> str:
    """A model has one; a file, which may be called anything, has none."""
    return f"the {name}" if name in ("baseline", "tuned model") else name


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
