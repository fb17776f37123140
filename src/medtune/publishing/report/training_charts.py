"""The report's charts of how a run went: loss, learning rate, speed and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medtune.publishing.report.reading_run import Step
from medtune.publishing.report.svg import COLOURS, HEIGHT, SMALL_SIZE, WIDTH, Chart, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIB = 1 << 30
# More points than a chart has pixels say nothing more.
_MAX_POINTS = 400


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
        axes.legend()
    _label(axes, "loss, nats a token")
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
    figure, axes = _draw_curve(rates, "learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3), useMathText=False)
    highest = max(rate for _, rate in rates)
    return Chart("learning_rate", "Learning rate", f"Learning rate by step, at most {highest:.3g}.", figure)


def draw_speed(history: Sequence[Step]) -> Chart | None:
    """Tokens per second by step, validations left out."""
    speeds = [(entry.step, entry.tokens_per_second) for entry in history if entry.tokens_per_second is not None]
    if not speeds:
        return None
    figure, axes = _draw_curve(speeds, "training tokens a second")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    typical = sorted(speed for _, speed in speeds)[len(speeds) // 2]
    return Chart(
        "speed", "Training speed", f"Training tokens per second by step; half of them over {typical:,.0f}.", figure
    )


def draw_memory(provenance: Mapping[str, Any]) -> Chart | None:
    """Peak memory of every stage: the GPU's where there is one, else the process's."""
    peaks, on_gpu = stage_peaks(provenance)
    if not peaks:
        return None
    figure, axes = new_figure(WIDTH, HEIGHT)
    names = list(peaks)[::-1]
    values = [peaks[name] / GIB for name in names]
    colours = [COLOURS["tuned"] if name == "train" else COLOURS["baseline"] for name in names]
    axes.barh(range(len(names)), values, height=0.62, color=colours)
    planned = planned_peak(provenance) if on_gpu else None
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        end, text = value, f"{value:.2f}"
        if planned and name == "train":
            end, text = max(value, planned / GIB), f"{text} (planned {planned / GIB:.2f})"
            axes.plot([planned / GIB] * 2, [place - 0.42, place + 0.42], color=COLOURS["text"], linewidth=2)
        axes.annotate(
            text,
            (end, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL_SIZE,
            color=COLOURS["text"],
        )
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=COLOURS["text"])
    axes.margins(x=0.16)
    axes.grid(axis="x")
    what = "GPU memory" if on_gpu else "memory of the process"
    mark = "; the upright mark is what was planned" if planned else ""
    axes.set_xlabel(f"peak {what}, GiB{mark}")
    return Chart("memory", f"Peak {what} by stage", f"Peak {what} of each stage in GiB; the numbers are below.", figure)


def stage_records(provenance: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the stages recorded, the report's own left out."""
    return {name: cost for name, cost in provenance.get("stages", {}).items() if name != "report"}


def stage_peaks(provenance: Mapping[str, Any]) -> tuple[dict[str, int], bool]:
    """Peak bytes of every stage, and whether they are a GPU's."""
    records = stage_records(provenance)
    for key, on_gpu in (("peak_gpu_bytes", True), ("peak_rss_bytes", False)):
        peaks = {name: cost[key] for name, cost in records.items() if isinstance(cost.get(key), int) and cost[key] > 0}
        if peaks:
            return peaks, on_gpu
    return {}, False


def planned_peak(provenance: Mapping[str, Any]) -> int | None:
    """Bytes that the plan of the training step predicted, if it did."""
    plan = stage_records(provenance).get("train", {}).get("plan")
    peak = plan.get("peak_bytes") if isinstance(plan, Mapping) else None
    return peak if isinstance(peak, int) and peak > 0 else None


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most some hundred points: means of as many steps each."""
    size = math.ceil(len(points) / _MAX_POINTS)
    if size == 1:
        return [(float(step), value) for step, value in points]
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(step for step, _ in part) / len(part), sum(v for _, v in part) / len(part)) for part in parts]


def _draw_curve(points: Sequence[tuple[int, float]], label: str) -> tuple[Figure, Axes]:
    figure, axes = new_figure(WIDTH, HEIGHT)
    axes.plot(*zip(*thinned(points), strict=True), color=COLOURS["tuned"])
    axes.set_ylim(bottom=0)
    _label(axes, label)
    return figure, axes


def _label(axes: Axes, label: str) -> None:
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.grid(axis="y")
