"""The report's chart of lengths: histograms of references and answers in the model's tokens."""

import math
from collections.abc import Mapping, Sequence

from medtune.publishing.report.svg import COLOURS, SMALL_SIZE, WIDTH, Chart, new_figure
from medtune.records import Prediction


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
