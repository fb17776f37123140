"""The report's charts of scores and answers, and all of a run's charts as SVG."""

import math
from collections.abc import Mapping, Sequence

from medtune.evaluation.formatting import format_count, metric_label
from medtune.evaluation.metrics import metric_named
from medtune.publishing.report.reading_run import ReportData, read_report
from medtune.publishing.report.svg import COLOURS, SMALL_SIZE, WIDTH, Chart, house_style, new_figure, to_svg
from medtune.publishing.report.training_charts import draw_learning_rate, draw_loss, draw_memory, draw_speed
from medtune.records import ComparisonRow, Prediction
from medtune.run_dir.directory import RunDir

_MARKERS = {"better": "o", "worse": "s"}


def figures(run: RunDir) -> dict[str, str]:
    """Every chart of a compared run as SVG by its name, to be shown anywhere: a notebook, a talk.

    The names are `differences`, `lengths`, `memory`, and of a run that trained here `loss`, `learning_rate` and
    `speed`. Raises RunDirError as `read_report` does.
    """
    return {chart.name: to_svg(chart, standalone=True) for chart in draw_charts(read_report(run)).values()}


def draw_charts(data: ReportData) -> dict[str, Chart]:
    """Every chart that `data` has the numbers for, by name."""
    rows = [row for row in data.comparison.rows if row.table == "standard"]
    cap = data.config.generation.max_new_tokens
    baseline, tuned = data.predictions["baseline"], data.predictions["tuned"]
    with house_style():
        drawn = (
            draw_differences(rows),
            draw_lengths(baseline, tuned, cap),
            draw_loss(data.history),
            draw_learning_rate(data.history),
            draw_speed(data.history),
            draw_memory(data.provenance),
        )
    return {chart.name: chart for chart in drawn if chart}


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
        marker = _MARKERS.get(row.verdict, "o")
        axes.plot(middle, place, marker=marker, markersize=7, color=colour, markerfacecolor=face)
    axes.axvline(0, color=COLOURS["muted"], linewidth=1)
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_yticks(range(len(shown)), [metric_label(row.metric) for row in shown])
    axes.tick_params(axis="y", labelcolor=COLOURS["text"])
    axes.set_xlabel("← worse · 1 is the interval's outer end · better →")
    axes.grid(axis="x")
    return Chart(
        "differences",
        "Differences between tuned and baseline, with 95 % intervals",
        f"{format_count(len(shown), 'metric')}, each on a scale of its own that ends at its interval's outer end. "
        "Right of zero the tuned model is better; an interval that touches zero leaves the question open. The numbers "
        "are in the table above.",
        figure,
    )


def scaled(row: ComparisonRow) -> tuple[float, float, float] | None:
    """Difference and interval in shares of the interval's outer end, turned so that positive is better.

    None where there is no interval, or where it is not finite. Metrics of different units fit one axis that way, and
    whether an interval holds zero, and how wide it is beside the difference, stays as it was.
    """
    if row.ci95 is None or not all(map(math.isfinite, (*row.ci95, row.difference))):
        return None
    outer = max(map(abs, (*row.ci95, row.difference))) or 1.0
    sign = -1 if metric_named(row.metric).lower_is_better else 1
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
        # Half a token less, so that answers of exactly the cap are left of its line.
        inside = [min(value, top) - 0.5 for value in values]
        axes.hist(inside, bins=[width * place for place in range(bars + 1)], color=COLOURS[colours[name]])
        axes.axvline(cap, color=COLOURS["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_title(name, fontsize=SMALL_SIZE, pad=2, color=COLOURS["text"])
        axes.tick_params(axis="y", labelsize=SMALL_SIZE)
        axes.locator_params(axis="y", nbins=3, integer=True)
        axes.grid(axis="y")
    panels[0].annotate(
        f"cap {cap}", (cap, 1.0), xycoords=("data", "axes fraction"), xytext=(-4, 2), textcoords="offset points",
        ha="right", va="bottom", fontsize=SMALL_SIZE, color=COLOURS["muted"],
    )  # fmt: skip
    panels[-1].set_xlim(0, top)
    panels[-1].set_xlabel(f"tokens; the last bar holds all over {top - width:,.0f}")
    return Chart(
        "lengths",
        "Lengths of answers and references in tokens",
        f"Histograms of the references and of both models' answers, with the cap of {cap} new tokens; means and shares "
        "are in the table below.",
        figure,
    )


def length_bars(counts: Mapping[str, Sequence[int]], cap: int) -> int:
    """How many bars of a twentieth of the cap: beyond it to what 95 % of the references are within, or four caps."""
    references = sorted(counts.get("references", ())) or [cap]
    most = max(cap * 1.2, references[int(0.95 * (len(references) - 1))])
    return min(80, math.ceil(most / (cap / 20)))
