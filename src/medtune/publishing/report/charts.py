"""The report's charts, each a matplotlib figure of what was measured, and all of a run's as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medtune.evaluation.comparison import lower_is_better
from medtune.evaluation.formatting import METRIC_NAMES, format_count
from medtune.publishing.report.reading_run import ReportData, Step, read_report
from medtune.publishing.report.svg import COLOURS, FONT_SIZE, house_style, new_figure, to_svg
from medtune.records import ComparisonRow, Prediction
from medtune.run_dir import RunDir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GIB = 1 << 30
# Narrow enough for a phone to show letters of a size that can be read.
WIDTH, HEIGHT = 430.0, 250.0
# More points than a chart has pixels say nothing more.
_MAX_POINTS = 400
_SMALL = FONT_SIZE - 2
_MARKERS = {"better": "o", "worse": "s", "not distinguishable": "o", "undefined": "D"}


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its name in the page, its title and what it shows in a sentence."""

    name: str
    title: str
    description: str
    figure: Figure


def figures(run: RunDir) -> dict[str, str]:
    """Every chart of a compared run as SVG by its name, to be shown anywhere: a notebook, a talk.

    The names are `differences`, `lengths`, and of a run that trained here `loss`, `learning_rate`, `speed` and `memory`.
    Raises RunDirError as `read_report` does.
    """
    return {
        chart.name: to_svg(chart.figure, chart.name, chart.title, chart.description, standalone=True)
        for chart in draw_charts(read_report(run)).values()
    }


def draw_charts(data: ReportData) -> dict[str, Chart]:
    """Every chart that `data` has the numbers for, by name."""
    rows = [row for row in data.comparison.rows if row.table == "standard"]
    cap = data.config.generation.max_new_tokens
    baseline, tuned = data.predictions["baseline"], data.predictions["tuned"]
    makers: tuple[Callable[[], Chart | None], ...] = (
        lambda: draw_differences(rows),
        lambda: draw_lengths(baseline, tuned, cap),
        lambda: draw_loss(data.history),
        lambda: draw_learning_rate(data.history),
        lambda: draw_speed(data.history),
        lambda: draw_memory(data.provenance),
    )
    with house_style():
        return {chart.name: chart for make in makers if (chart := make())}


def draw_differences(rows: Sequence[ComparisonRow]) -> Chart | None:
    """Differences with their intervals, each metric on a scale of its own, better to the right."""
    shown = [row for row in rows if scaled(row) is not None][::-1]
    if not shown:
        return None
    figure, axes = new_figure(WIDTH, 46 + 27 * len(shown))
    for place, row in enumerate(shown):
        middle, low, high = scaled(row) or (0.0, 0.0, 0.0)
        colour = COLOURS[{"better": "tuned", "worse": "worse"}.get(row.verdict, "muted")]
        face = colour if row.verdict in ("better", "worse") else COLOURS["surface"]
        axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(middle, place, marker=_MARKERS[row.verdict], markersize=7, color=colour, markerfacecolor=face)
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_yticks(range(len(shown)), [METRIC_NAMES.get(row.metric, row.metric) for row in shown])
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["text"])
    axes.set_xlabel("← worse · 1 is the interval's outer end · better →", fontsize=_SMALL)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.8)
    return Chart(
        "differences",
        "Differences between tuned and baseline, with 95 % intervals",
        f"{format_count(len(shown), 'metric')}, each on a scale of its own on which 1 is the outer end of its interval. "
        "Right of zero the tuned model is better; an interval that touches zero leaves the question open. The numbers "
        "stand in the table above.",
        figure,
    )


def scaled(row: ComparisonRow) -> tuple[float, float, float] | None:
    """Difference and interval in shares of the interval's outer end, turned so that positive is better.

    None where there is no interval, or where it is not finite. Metrics of unlike units fit one axis that way, and
    whether an interval holds zero, and how wide it is beside the difference, stays as it was.
    """
    if row.ci95 is None or not all(map(math.isfinite, (*row.ci95, row.difference))):
        return None
    outer = max(map(abs, (*row.ci95, row.difference))) or 1.0
    sign = -1 if lower_is_better(row.metric) else 1
    low, high = sorted(sign * end / outer for end in row.ci95)
    return sign * row.difference / outer, low, high


def token_counts(baseline: Sequence[Prediction], tuned: Sequence[Prediction]) -> dict[str, list[int]]:
    """Tokens of references and of both models' answers, each only where every row tells them."""
    found = {
        "references": [row.reference_tokens for row in baseline],
        "baseline": [row.new_tokens for row in baseline],
        "tuned": [row.new_tokens for row in tuned],
    }
    return {
        name: [count for count in counts if count is not None] for name, counts in found.items() if None not in counts
    }


def draw_lengths(baseline: Sequence[Prediction], tuned: Sequence[Prediction], cap: int) -> Chart | None:
    """Histograms of answers and references one above the other, with the cap."""
    counts = token_counts(baseline, tuned)
    if not counts:
        return None
    width = cap / 20
    bars = length_bars(counts, cap)
    top = width * bars
    figure, first = new_figure(WIDTH, 70 * len(counts) + 48)
    first.remove()
    panels = figure.subplots(len(counts), 1, sharex=True, squeeze=False)[:, 0]
    colours = {"references": "reference", "baseline": "baseline", "tuned": "tuned"}
    for axes, (name, values) in zip(panels, counts.items(), strict=True):
        # Half a token less, so that answers of exactly the cap stand before its line.
        inside = [min(value, top) - 0.5 for value in values]
        axes.hist(inside, bins=[width * place for place in range(bars + 1)], color=COLOURS[colours[name]])
        axes.axvline(cap, color=COLOURS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_title(name, fontsize=_SMALL, pad=2, color=COLOURS["text"])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=_SMALL)
        axes.locator_params(axis="y", nbins=3, integer=True)
        axes.grid(axis="y", linewidth=0.8)
    panels[0].annotate(
        f"cap {cap}", (cap, 1.0), xycoords=("data", "axes fraction"), xytext=(-4, 2), textcoords="offset points",
        ha="right", va="bottom", fontsize=_SMALL, color=COLOURS["muted"],
    )  # fmt: skip
    panels[-1].set_xlim(0, top)
    panels[-1].set_xlabel(f"tokens; the last bar holds all over {top - width:,.0f}", fontsize=_SMALL)
    return Chart(
        "lengths",
        "Lengths of answers and references in tokens",
        f"Histograms of the references and of both models' answers, with the cap of {cap} new tokens; means and shares "
        "stand in the table below.",
        figure,
    )


def length_bars(counts: Mapping[str, Sequence[int]], cap: int) -> int:
    """How many bars of a twentieth of the cap: beyond it to what 95 % of the references are within, or four caps."""
    references = sorted(counts.get("references", ())) or [cap]
    most = max(cap * 1.2, references[int(0.95 * (len(references) - 1))])
    return min(80, math.ceil(most / (cap / 20)))


def draw_loss(history: Sequence[Step]) -> Chart | None:
    """Training loss by step, and the validation loss that chose the adapter."""
    losses = [(entry.step, entry.loss) for entry in history if entry.loss is not None and math.isfinite(entry.loss)]
    validations = validation_losses(history)
    if not losses:
        return None
    figure, axes = new_figure(WIDTH, HEIGHT)
    axes.plot(*zip(*thinned(losses), strict=True), color=COLOURS["baseline"], label="training")
    if validations:
        best = min(validations, key=lambda point: point[1])
        axes.plot(*zip(*validations, strict=True), color=COLOURS["tuned"], marker="o", markersize=4, label="validation")
        axes.plot(*best, marker="o", markersize=9, fillstyle="none", color=COLOURS["tuned"], linestyle="none")
    axes.set_ylabel("loss, nats a token", fontsize=_SMALL)
    _finish_steps(axes, legend=bool(validations))
    ends = f"from {losses[0][1]:.3f} to {losses[-1][1]:.3f}"
    lowest = f"; the lowest validation loss, ringed, is {best[1]:.3f} at step {best[0]}" if validations else ""
    return Chart("loss", "Training and validation loss", f"Training loss by step, {ends}{lowest}.", figure)


def validation_losses(history: Sequence[Step]) -> list[tuple[int, float]]:
    """Steps and validation losses, those that are finite."""
    found = [(entry.step, entry.validation_loss) for entry in history]
    return [(step, loss) for step, loss in found if loss is not None and math.isfinite(loss)]


def draw_learning_rate(history: Sequence[Step]) -> Chart | None:
    """The learning rate by step."""
    rates = [(entry.step, entry.learning_rate) for entry in history if entry.learning_rate is not None]
    if not rates:
        return None
    figure, axes = new_figure(WIDTH, HEIGHT)
    axes.plot(*zip(*thinned(rates), strict=True), color=COLOURS["tuned"])
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3), useMathText=False)
    axes.set_ylabel("learning rate", fontsize=_SMALL)
    _finish_steps(axes)
    highest = max(rate for _, rate in rates)
    return Chart("learning_rate", "Learning rate", f"Learning rate by step, at most {highest:.3g}.", figure)


def draw_speed(history: Sequence[Step]) -> Chart | None:
    """Tokens per second by step, validations left out."""
    speeds = [(entry.step, entry.tokens_per_second) for entry in history if entry.tokens_per_second is not None]
    if not speeds:
        return None
    figure, axes = new_figure(WIDTH, HEIGHT)
    axes.plot(*zip(*thinned(speeds), strict=True), color=COLOURS["tuned"])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("training tokens a second", fontsize=_SMALL)
    _finish_steps(axes)
    typical = sorted(speed for _, speed in speeds)[len(speeds) // 2]
    return Chart(
        "speed", "Training speed", f"Training tokens per second by step; half of them over {typical:,.0f}.", figure
    )


def draw_memory(provenance: Mapping[str, object]) -> Chart | None:
    """Peak memory of every stage: the GPU's where there is one, else the process's."""
    peaks, on_gpu = stage_peaks(provenance)
    if not peaks:
        return None
    figure, axes = new_figure(WIDTH, HEIGHT)
    names = list(peaks)[::-1]
    values = [peaks[name] / GIB for name in names]
    colours = [COLOURS["tuned"] if name == "train" else COLOURS["baseline"] for name in names]
    bars = axes.barh(range(len(names)), values, height=0.62, color=colours)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, fontsize=_SMALL, color=COLOURS["text"])
    planned = planned_peak(provenance)
    if planned and on_gpu and "train" in names:
        place = names.index("train")
        axes.plot([planned / GIB] * 2, [place - 0.42, place + 0.42], color=COLOURS["text"], linewidth=2)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["text"])
    axes.margins(x=0.12)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", linewidth=0.8)
    what = "GPU memory" if on_gpu else "memory of the process"
    mark = "; the upright mark is what was planned" if planned and on_gpu else ""
    axes.set_xlabel(f"peak {what}, GiB{mark}", fontsize=_SMALL)
    return Chart(
        "memory", f"Peak {what} by stage", f"Peak {what} of each stage in GiB; the numbers stand below.", figure
    )


def stage_peaks(provenance: Mapping[str, object]) -> tuple[dict[str, int], bool]:
    """Peak bytes of every stage, and whether they are a GPU's."""
    stages = provenance.get("stages")
    records = {name: cost for name, cost in stages.items() if name != "report"} if isinstance(stages, Mapping) else {}
    for key, on_gpu in (("peak_gpu_bytes", True), ("peak_rss_bytes", False)):
        peaks = {name: cost[key] for name, cost in records.items() if isinstance(cost.get(key), int) and cost[key] > 0}
        if peaks:
            return peaks, on_gpu
    return {}, False


def planned_peak(provenance: Mapping[str, object]) -> int | None:
    """Bytes that the plan of the training step foretold, if it did."""
    stages = provenance.get("stages")
    train = stages.get("train", {}) if isinstance(stages, Mapping) else {}
    plan = train.get("plan") or {}
    peak = plan.get("peak_bytes") if isinstance(plan, Mapping) else None
    return peak if isinstance(peak, int) and peak > 0 else None


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most some hundred points: means of as many steps each."""
    size = math.ceil(len(points) / _MAX_POINTS)
    if size == 1:
        return [(float(step), value) for step, value in points]
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(step for step, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in parts]


def _finish_steps(axes: object, *, legend: bool = False) -> None:
    axes.set_xlabel("step", fontsize=_SMALL)  # type: ignore[attr-defined]
    axes.grid(axis="y", linewidth=0.8)  # type: ignore[attr-defined]
    axes.spines["left"].set_visible(False)  # type: ignore[attr-defined]
    axes.tick_params(axis="y", length=0)  # type: ignore[attr-defined]
    if legend:
        axes.legend(frameon=False, fontsize=_SMALL)  # type: ignore[attr-defined]
