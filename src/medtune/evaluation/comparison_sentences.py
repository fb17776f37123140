"""The comparison in plain sentences, each computed from the numbers; none says anything about medicine."""

from collections.abc import Sequence
from dataclasses import dataclass

from medtune.evaluation.analysis import analyse
from medtune.evaluation.comparison_warnings import comparison_warnings
from medtune.evaluation.control_answers import CEILING, ON_TOP
from medtune.evaluation.formatting import (
    HEADLINE_METRICS,
    format_confidence,
    format_count,
    format_difference,
    format_interval,
    format_value,
    listed,
    metric_label,
    with_article,
)
from medtune.evaluation.headline import headline
from medtune.records import Comparison, ComparisonRow, Control, Verdict

LIMITS = (
    "These scores measure similarity to the reference answers: overlap rewards the references' register and stock "
    "phrases, and is no measure of medical correctness."
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A comparison in plain sentences, by subject; any part but `limits` may be empty."""

    headline: str
    verdict: tuple[str, ...]
    controls: tuple[str, ...]
    unclear: tuple[str, ...]
    warnings: tuple[str, ...]
    analysis: tuple[str, ...]
    limits: str

    @property
    def sentences(self) -> list[str]:
        """All of them, most important first."""
        return [
            self.headline,
            *self.verdict,
            *self.controls,
            *self.unclear,
            *self.warnings,
            *self.analysis,
            self.limits,
        ]


def reading_of(comparison: Comparison) -> Reading:
    """The reading in its parts, each entry a sentence or two."""
    names = with_article(comparison.names[0]), with_article(comparison.names[1])
    return Reading(
        headline=headline(comparison),
        verdict=tuple(_read_verdict(comparison)),
        controls=tuple(_read_controls(comparison.controls)),
        unclear=tuple(_read_unclear(comparison.rows)),
        warnings=tuple(comparison_warnings(comparison)),
        analysis=tuple(analyse(comparison, names)),
        limits=LIMITS,
    )


_PHRASES: dict[Verdict, str] = {
    "better": "better by",
    "worse": "worse by",
    "equivalent": "equivalent by",
    "cannot tell": "not to be told apart by",
    "too few groups": "not tested, for want of groups, by",
    "undefined": "not comparable by",
}


def _read_verdict(comparison: Comparison) -> list[str]:
    """The verdict by each primary metric, and what it does not cover."""
    rows = [row for row in comparison.rows if row.is_primary]
    if not rows:
        return []
    before, after = map(with_article, comparison.names)
    where = f"On {format_count(rows[0].n, 'question')} in {format_count(rows[0].groups, 'group')}"
    parts = []
    for verdict, phrase in _PHRASES.items():
        if metrics := [metric_label(row.metric) for row in rows if row.verdict == verdict]:
            parts.append(f"{phrase} {listed(metrics)}")
    tests = "p < 0.05" if len(rows) == 1 else f"p < 0.05 after Holm's correction for {len(rows)} primary metrics"
    return [
        f"{where} {after}, against {before}, is {'; '.join(parts)} (sign-flip test over groups, {tests}). "
        "All other metrics are descriptive: each has a 95 % interval by itself, and no verdict."
    ]


def _read_unclear(rows: Sequence[ComparisonRow]) -> list[str]:
    """For every primary metric without a difference that is shown: its interval, and what this test can find."""
    sentences = []
    for row in rows:
        if row.verdict not in ("cannot tell", "equivalent"):
            continue
        label, difference = metric_label(row.metric), format_difference(row.metric, row.difference)
        interval = ""
        if row.interval:
            interval = f", {format_confidence(row.confidence)} interval {format_interval(row.metric, row.interval)}"
        sentence = f"{label[0].upper()}{label[1:]} differs by {difference}{interval}, "
        if row.verdict == "equivalent":
            sentence += f"which is within the margin of ± {row.margin:g}."
        else:
            sentence += f"which {format_count(row.n, 'row')} cannot tell from chance"
            if row.detectable is not None:
                sentence += f"; they would show a true difference of {format_value(row.metric, row.detectable)}"
            if row.rows_needed is not None and row.rows_needed > row.n:
                sentence += f", and one of that size would take about {row.rows_needed:,} rows"
            sentence += "."
        sentences.append(sentence)
    return sentences


def _read_controls(controls: Sequence[Control]) -> list[str]:
    """Controls that tuning did not beat come first, then those that it beats by every headline metric."""
    lost, beaten, others = [], [], []
    for control in controls:
        if not (rows := _compared(control.against_tuned)):
            continue
        unbeaten = [row for row in rows if row.verdict != "better"]
        if control.name == CEILING:
            figures = listed([f"{metric_label(row.metric)} {format_value(row.metric, row.baseline)}" for row in rows])
            others.append(f"The ceiling under this cap, {control.description}, scores {figures}.")
        elif control.name == ON_TOP:
            others += _read_on_top(control.description, rows)
        elif unbeaten:
            figures = ", ".join(
                f"{metric_label(row.metric)} {format_value(row.metric, row.tuned)} against "
                f"{format_value(row.metric, row.baseline)} ({row.verdict})"
                for row in unbeaten
            )
            lost.append(f"Tuning does not beat {control.description}: {figures}.")
        else:
            beaten.append(control.description)
    beats = [f"By every primary metric tuning beats {listed(beaten)}."] if beaten else []
    return lost + beats + others


def _read_on_top(description: str, rows: Sequence[ComparisonRow]) -> list[str]:
    """What retrieval adds to tuning, where it adds anything: of these rows the control is the `baseline`."""
    gains = [
        f"{metric_label(row.metric)} {format_value(row.metric, row.baseline)} against "
        f"{format_value(row.metric, row.tuned)}"
        for row in rows
        if row.verdict == "worse"
    ]
    if not gains:
        return []
    losses = [metric_label(row.metric) for row in rows if row.verdict == "better"]
    but = f", but is worse by {listed(losses)}" if losses else ""
    return [f"Retrieval on top of tuning adds: {description} scores {listed(gains)} without them{but}."]


def _compared(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The primary metrics, or the headline ones of a comparison that has none."""
    return [row for row in rows if row.is_primary] or [row for row in rows if row.metric in HEADLINE_METRICS]
