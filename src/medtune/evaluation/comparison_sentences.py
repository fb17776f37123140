"""The comparison in plain sentences, each computed from the numbers; none says anything about medicine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medtune.data.leakage import KIND_NAMES
from medtune.data.splits import ENOUGH_GROUPS
from medtune.evaluation.analysis import analyse
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
)
from medtune.evaluation.headline import CUT_SHARE_WARNING, headline
from medtune.evaluation.significance import fewest_groups
from medtune.evaluation.text_warnings import text_warnings
from medtune.records import Comparison, ComparisonRow, Control, Score, Verdict

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
    names = _with_article(comparison.names[0]), _with_article(comparison.names[1])
    return Reading(
        headline=headline(comparison),
        verdict=tuple(_read_verdict(comparison)),
        controls=tuple(_read_controls(comparison.controls)),
        unclear=tuple(_read_unclear(comparison.rows)),
        warnings=tuple(_warnings(comparison)),
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
    before, after = map(_with_article, comparison.names)
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


def _warnings(comparison: Comparison) -> list[str]:
    warnings = []
    rows = comparison.rows
    warnings += _group_warnings(comparison)
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
            f"Warning: test rows share things with training rows ({listed(shares)} of the test rows), so that "
            f"remembering passes for answering; {where}."
        )
    return warnings + _cap_warnings(comparison) + text_warnings(_scores_by_name(comparison))


def _scores_by_name(comparison: Comparison) -> dict[str, Mapping[str, Score]]:
    before, after = map(_with_article, comparison.names)
    return {
        before: comparison.scores.get("baseline", {}),
        after: comparison.scores.get("tuned", {}),
        **{f"the control {control.name}": control.scores for control in comparison.controls},
    }


def _group_warnings(comparison: Comparison) -> list[str]:
    """Say so where few groups, or a few large ones, carry the intervals."""
    groups, primary = comparison.groups, [row for row in comparison.rows if row.is_primary]
    if groups is None or not primary:
        return []
    if groups.groups < fewest_groups(len(primary)):
        return [
            f"Warning: {format_count(groups.groups, 'independent group')} of rows cannot carry a verdict on "
            f"{format_count(len(primary), 'primary metric')}; test on at least {fewest_groups(len(primary))} topics."
        ]
    if groups.effective >= ENOUGH_GROUPS:
        return []
    counted = f"the rows fall into {format_count(groups.groups, 'group')}"
    if groups.effective < 0.9 * groups.groups:
        whose = f" (that of row {groups.largest})" if groups.largest else ""
        counted += (
            f", which count as {groups.effective:.0f} of equal size: the largest{whose} holds "
            f"{groups.largest_share:.0%} of the rows"
        )
    return [
        f"Warning: {counted}. The verdict holds its level, but where differences are skewed, intervals of so few "
        "groups cover 92 to 95 % and not 95 %; test on more topics."
    ]


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


def _compared(rows: Sequence[ComparisonRow]) -> list[ComparisonRow]:
    """The primary metrics, or the headline ones of a comparison that has none."""
    return [row for row in rows if row.is_primary] or [row for row in rows if row.metric in HEADLINE_METRICS]


def _with_article(name: str) -> str:
    """A model has one; a file, which may be called anything, has none."""
    return f"the {name}" if name in ("baseline", "tuned model") else name
