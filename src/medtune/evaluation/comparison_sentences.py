"""The comparison in plain sentences, each computed from the numbers; none says anything about medicine."""

from collections.abc import Sequence
from dataclasses import dataclass

from medtune.data.leakage import KIND_NAMES
from medtune.evaluation.analysis import analyse
from medtune.evaluation.control_answers import CEILING
from medtune.evaluation.formatting import (
    HEADLINE_METRICS,
    format_count,
    format_difference,
    format_interval,
    format_value,
    metric_label,
)
from medtune.evaluation.significance import FEW_GROUPS
from medtune.records import Comparison, ComparisonRow, Control, Verdict

# Above this share of cut references or answers, overlap scores measure the cap as much as the model.
CUT_SHARE_WARNING = 0.05
LIMITS = (
    "These scores measure similarity to the reference answers: overlap rewards the references' register and stock "
    "phrases, and is no measure of medical correctness."
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A comparison in plain sentences, by subject; any part but `limits` may be empty."""

    verdict: tuple[str, ...]
    controls: tuple[str, ...]
    unclear: tuple[str, ...]
    warnings: tuple[str, ...]
    analysis: tuple[str, ...]
    limits: str

    @property
    def sentences(self) -> list[str]:
        """All of them, most important first."""
        return [*self.verdict, *self.controls, *self.unclear, *self.warnings, *self.analysis, self.limits]


def reading_of(comparison: Comparison) -> Reading:
    """The reading in its parts, each entry a sentence or two."""
    names = _with_article(comparison.names[0]), _with_article(comparison.names[1])
    return Reading(
        verdict=tuple(_read_verdict(comparison)),
        controls=tuple(_read_controls(comparison.controls)),
        unclear=tuple(_read_unclear(comparison.rows)),
        warnings=tuple(_warnings(comparison)),
        analysis=tuple(analyse(comparison, names)),
        limits=LIMITS,
    )


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
        if metrics := [metric_label(row.metric) for row in rows if row.verdict == verdict]:
            parts.append(f"{phrase} {_listed(metrics)}")
    return [f"{where} {after}, against {before}, is {'; '.join(parts)} (Holm-corrected p < 0.05)."]


def _read_unclear(rows: Sequence[ComparisonRow]) -> list[str]:
    """For every headline metric without a verdict: the difference, its interval, and the n that it would take."""
    sentences = []
    for row in _headline(rows):
        if row.verdict != "not distinguishable":
            continue
        interval = f", 95 % interval {format_interval(row.metric, row.ci95)}" if row.ci95 else ""
        needed = ""
        if row.rows_needed is not None and row.rows_needed > row.n:
            needed = f"; a true difference of that size would take about {row.rows_needed:,} rows to find"
        label, difference = metric_label(row.metric), format_difference(row.metric, row.difference)
        sentences.append(
            f"{label[0].upper()}{label[1:]} differs by {difference}{interval}, "
            f"which {format_count(row.n, 'row')} cannot tell from chance{needed}."
        )
    return sentences


def _read_controls(controls: Sequence[Control]) -> list[str]:
    """Controls that tuning did not beat come first, those that it beats by every headline metric last."""
    lost, beaten, ceilings = [], [], []
    for control in controls:
        if not (rows := _headline(control.against_tuned)):
            continue
        unbeaten = [row for row in rows if row.verdict != "better"]
        if control.name == CEILING:
            figures = _listed([f"{metric_label(row.metric)} {format_value(row.metric, row.baseline)}" for row in rows])
            ceilings.append(f"The ceiling under this cap, {control.description}, scores {figures}.")
        elif unbeaten:
            figures = ", ".join(
                f"{metric_label(row.metric)} {format_value(row.metric, row.tuned)} against "
                f"{format_value(row.metric, row.baseline)} ({row.verdict})"
                for row in unbeaten
            )
            lost.append(f"Tuning does not beat {control.description}: {figures}.")
        else:
            beaten.append(control.description)
    beats = [f"By every headline metric tuning beats {_listed(beaten)}."] if beaten else []
    return lost + beats + ceilings


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
    return warnings + _cap_warnings(comparison)


def _cap_warnings(comparison: Comparison) -> list[str]:
    shares = (comparison.lengths[name].share_at_cap for name in ("baseline", "tuned"))
    over = [
        _with_article(name)
        for name, share in zip(comparison.names, shares, strict=True)
        if share is not None and share > CUT_SHARE_WARNING
    ]
    if not over:
        return []
    return [
        f"Warning: the cap cut more than {CUT_SHARE_WARNING:.0%} of the answers of {' and '.join(over)}, "
        "so the overlap scores measure the cap too; raise generation.max_new_tokens and evaluate again."
    ]


def _headline(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The headline metrics among the standard ones of `rows`; all of those where none was measured."""
    standard = [row for row in rows if row.table == "standard"]
    return [row for row in standard if row.metric in HEADLINE_METRICS] or standard


def _listed(items: Sequence[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    separator = "; " if any("," in item for item in items) else ", "
    return f"{separator.join(items[:-1])} and {items[-1]}"


def _with_article(name: str) -> str:
    """A model has one; a file, which may be called anything, has none."""
    return f"the {name}" if name in ("baseline", "tuned model") else name
