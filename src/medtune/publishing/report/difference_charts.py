"""The report's chart of differences: a small panel a metric, each on an axis of the metric's own unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from medtune.evaluation.formatting import (
    format_confidence,
    format_count,
    format_difference,
    format_interval,
    format_value,
    metric_label,
)
from medtune.evaluation.metrics import metric_named
from medtune.publishing.report.score_tables import VERDICT_WORDS
from medtune.publishing.report.svg import COLOURS, FONT_SIZE, SMALL_SIZE, Chart, fit_text, plain_figure, text_width
from medtune.records import Comparison, ComparisonRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A panel's measures in user units: three lines of text, a lane a system, an axis and a note.
PANEL_WIDTH = 360.0
_LINES = (15.0, 32.0, 47.0)
_TOP, _LANE, _BOTTOM = 56.0, 18.0, 42.0
_GAP = 10.0
# A control further off than this many spans of the two models and their interval is an arrow at the axis's end.
_REACH = 1.5
_MOST_DRAWN = 1e100  # beyond it, sums of two values overflow


@dataclass(frozen=True)
class Panel:
    """One metric: what both models and every control score, and how sure their difference is."""

    row: ComparisonRow
    controls: tuple[tuple[str, float], ...]

    @cached_property
    def systems(self) -> list[tuple[str, float]]:
        """Names and values, from the top lane down."""
        return [("baseline", self.row.baseline), ("tuned model", self.row.tuned), *self.controls]

    @cached_property
    def height(self) -> float:
        """The panel's height in user units."""
        return _TOP + _LANE * len(self.systems) + _BOTTOM

    @cached_property
    def lines(self) -> tuple[str, str, str]:
        """What is written above the axis: the metric, the verdict with the difference, the interval."""
        row = self.row
        direction = "lower is better" if metric_named(row.metric).lower_is_better else "higher is better"
        kind = f"primary: {VERDICT_WORDS[row.verdict]}" if row.is_primary else "descriptive"
        interval = f"{format_confidence(row.confidence)} interval {format_interval(row.metric, row.interval)}"
        return (
            f"{metric_label(row.metric)}, {direction}",
            f"{kind}, difference {format_difference(row.metric, row.difference)}",
            interval if row.interval else "no interval",
        )

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The axis: both models, the interval and the smallest detectable difference, and the controls near these."""
        row = self.row
        core = [row.baseline, row.tuned, *(row.baseline + end for end in row.interval or ())]
        core += [row.baseline + sign * row.detectable for sign in (-1, 1) if row.detectable]
        reach = _REACH * (max(core) - min(core))
        near = [value for _, value in self.controls if min(core) - reach <= value <= max(core) + reach]
        low, high = min(core + near), max(core + near)
        room = 0.05 * (high - low) or max(0.05 * abs(high), 10.0 ** -metric_named(row.metric).digits)
        return low - room, high + room

    def describe(self) -> str:
        """The panel in a sentence, for those who do not see it."""
        values = ", ".join(f"{name} {format_value(self.row.metric, value)}" for name, value in self.systems)
        return f"{values}; {self.lines[1]}, {self.lines[2]}."


def make_panels(comparison: Comparison) -> list[Panel]:
    """A panel for each metric of the standard table that has finite values, primary metrics first."""
    rows = [row for row in comparison.rows if row.table == "standard" and _is_drawable(row)]
    return [
        Panel(
            row,
            tuple(
                (control.name.replace("_", " "), control.scores[row.metric].value)
                for control in comparison.controls
                if row.metric in control.scores and abs(control.scores[row.metric].value) < _MOST_DRAWN
            ),
        )
        for row in sorted(rows, key=lambda row: not row.is_primary)
    ]


def draw_differences(panels: Sequence[Panel]) -> Chart | None:
    """All panels, one below the other."""
    if not panels:
        return None
    figure = plain_figure(PANEL_WIDTH, sum(panel.height for panel in panels))
    top = 0.0
    for panel in panels:
        _draw(figure, panel, top)
        top += panel.height
    return Chart(
        "differences",
        "Baseline, tuned model and controls by metric",
        f"{format_count(len(panels), 'metric')}, each on an axis of its own unit. The line is the interval of the "
        "difference, counted from the baseline. Shaded is what this test would miss: true differences smaller than it "
        "finds with 80 % power.",
        figure,
    )


def draw_panel(panel: Panel) -> Chart:
    """One panel as a chart of its own."""
    figure = plain_figure(PANEL_WIDTH, panel.height)
    _draw(figure, panel, 0.0)
    name = f"difference-{panel.row.metric}"
    return Chart(name, f"{panel.lines[0]}: baseline, tuned model and controls", panel.describe(), figure)


def _is_drawable(row: ComparisonRow) -> bool:
    numbers = (row.baseline, row.tuned, row.difference, *(row.interval or ()), row.detectable or 0.0)
    return all(abs(number) < _MOST_DRAWN for number in numbers)


def _draw(figure: Figure, panel: Panel, top: float) -> None:
    """Draw `panel` whose upper edge is `top` units below that of the figure."""
    width, height = (_from_inches(size) for size in figure.get_size_inches())
    metric, lanes = panel.row.metric, len(panel.systems)
    values = [format_value(metric, value) for _, value in panel.systems]
    left = max(text_width(name, SMALL_SIZE) for name, _ in panel.systems) + _GAP
    right = max(text_width(value, SMALL_SIZE) for value in values) + _GAP
    bottom = top + _TOP + _LANE * lanes
    axes = figure.add_axes(
        (left / width, 1 - bottom / height, (width - left - right) / width, _LANE * lanes / height),
        xlim=panel.limits,
        ylim=(lanes - 0.5, -0.5),
    )

    def write(x: float, y: float, text: str, size: float = SMALL_SIZE, **style: Any) -> None:
        text = fit_text(text, size, width)
        figure.text(x / width, 1 - (top + y) / height, text, fontsize=size, **({"va": "baseline"} | style))

    for y, text, style in zip(_LINES, panel.lines, _line_styles(panel.row), strict=True):
        write(0, y, text, **style)
    for lane, ((name, _), value) in enumerate(zip(panel.systems, values, strict=True)):
        y = _TOP + _LANE * (lane + 0.5)
        weight = "bold" if lane == 1 else "normal"
        write(0, y, name, va="center", weight=weight)
        write(width, y, value, va="center", ha="right", weight=weight)
    if panel.row.detectable:  # zero where all answers score alike, which says nothing of what would be missed
        note = f"shaded: ± {format_value(metric, panel.row.detectable)}, which this test would miss"
        write(0, panel.height - 8, note, color=COLOURS["muted"])
    _mark_values(axes, panel)
    _set_ticks(axes, left, width - left - right, width)


def _line_styles(row: ComparisonRow) -> tuple[dict[str, Any], ...]:
    colour = COLOURS[{"better": "tuned", "worse": "worse"}.get(row.verdict, "text")]
    return {"size": FONT_SIZE, "weight": "bold"}, {"color": colour}, {"color": COLOURS["muted"]}


def _mark_values(axes: Axes, panel: Panel) -> None:
    row, (low, high) = panel.row, panel.limits
    tuned = COLOURS["worse" if row.verdict == "worse" else "tuned"]
    if row.detectable:
        axes.axvspan(row.baseline - row.detectable, row.baseline + row.detectable, color=COLOURS["band"], linewidth=0)
    axes.axvline(row.baseline, color=COLOURS["muted"], linewidth=1)
    if row.interval:
        axes.plot([row.baseline + end for end in row.interval], [1, 1], color=tuned, linewidth=2.5)
    colours = [COLOURS["baseline"], tuned, *[COLOURS["reference"]] * len(panel.controls)]
    for lane, ((_, value), colour) in enumerate(zip(panel.systems, colours, strict=True)):
        marker = ">" if value > high else "<" if value < low else "o" if lane < 2 else "D"
        size = 8 if lane == 1 else 6
        axes.plot(min(max(value, low), high), lane, marker=marker, markersize=size, color=colour, clip_on=False)


def _set_ticks(axes: Axes, left: float, width: float, whole: float) -> None:
    """As many labelled ticks, four at most, as have room beside each other and within the panel."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    for most in (3, 2, 1):
        ticks = [tick for tick in MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
        labels = format_ticks(ticks)
        places = [left + width * (tick - low) / (high - low) for tick in ticks]
        halves = [text_width(label, SMALL_SIZE) / 2 for label in labels]
        ends = [(place - half, place + half) for place, half in zip(places, halves, strict=True)]
        apart = all(after[0] - before[1] > _GAP for before, after in pairwise(ends))
        if apart and all(first >= 0 and last <= whole for first, last in ends):
            break
    else:
        ticks, labels = [], []
    axes.set_xticks(ticks, labels)
    axes.set_yticks([])
    axes.grid(axis="x")
    axes.tick_params(axis="x", labelsize=SMALL_SIZE, pad=4)


def format_ticks(ticks: Sequence[float]) -> list[str]:
    """Numbers at equal distances, with the decimals that tell them apart."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else max(map(abs, ticks), default=1.0) or 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick:.2e}" if abs(tick) >= 1e6 else f"{tick:,.{decimals}f}" for tick in ticks]


def _from_inches(inches: float) -> float:
    return inches * 72
