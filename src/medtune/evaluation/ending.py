"""How a run ends in a terminal: the headline, primary metrics, the best control, and how many warnings there are."""

from collections import Counter
from collections.abc import Sequence

from medtune.config.evaluation import MOST_PRIMARY
from medtune.evaluation.comparison import primary_metrics
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.formatting import format_count, format_value, metric_label
from medtune.evaluation.headline import best_named, headline, rivals
from medtune.evaluation.metrics import metric_named
from medtune.records import Comparison, ComparisonRow, Control, ControlName


def ending(comparison: Comparison) -> list[str]:
    """The headline, and four lines at most: one for each primary metric, and one for the best control."""
    primary = _primary_rows(comparison)
    rows = [
        (
            metric_label(row.metric),
            f"{format_value(row.metric, row.baseline)} → {format_value(row.metric, row.tuned)}",
            row.verdict,
        )
        for row in primary
    ]
    width, values = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    lines = [f"{label:<{width}}  {value:<{values}}  {verdict}" for label, value, verdict in rows]
    if best := leading_control(comparison):
        lines.append(_control_line(best, primary))
    return [headline(comparison), *lines]


def warning_count(comparison: Comparison, of_data: int = 0) -> str:
    """How many warnings the reading holds, and `of_data` besides."""
    count = len(reading_of(comparison).warnings) + of_data
    return format_count(count, "warning") if count else "No warnings"


def leading_control(comparison: Comparison) -> Control | None:
    """The control that leads by most primary metrics, the ceiling apart; None where none was measured by any.

    By the controls' own values; the first where several lead by as many.
    """
    controls, leads = rivals(comparison), Counter[ControlName]()
    for metric in (row.metric for row in comparison.rows if row.is_primary):
        values = {control.name: own[metric] for control in controls if metric in (own := _values(control))}
        if (best := best_named(values, metric)) is not None:
            leads[best] += 1
    found = max(controls, key=lambda control: leads[control.name], default=None)
    return found if found is not None and leads[found.name] else None


def _primary_rows(comparison: Comparison) -> list[ComparisonRow]:
    rows = {row.metric: row for row in comparison.rows if row.is_primary}
    if len(rows) <= MOST_PRIMARY:
        return list(rows.values())
    # medtune 0.1.0 tested every metric.
    families = [metric for metric in rows if metric_named(metric).companion_of not in rows]
    return [rows[metric] for metric in primary_metrics(families)]


def _values(control: Control) -> dict[str, float]:
    return {row.metric: row.baseline for row in control.against_tuned}


def _control_line(control: Control, primary: Sequence[ComparisonRow]) -> str:
    values = _values(control)
    shown = [
        f"{metric_label(row.metric)} {format_value(row.metric, values[row.metric])}"
        for row in primary
        if row.metric in values
    ]
    return f"best control, {control.name.replace('_', ' ')}: {', '.join(shown)}"
