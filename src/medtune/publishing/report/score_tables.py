"""The report's tables as text, cell by cell: what was compared, controls, strata, lengths, ratings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from medtune.config.evaluation import MOST_PRIMARY
from medtune.evaluation.control_answers import CEILING, ON_TOP
from medtune.evaluation.formatting import (
    HEADLINE_METRICS,
    format_confidence,
    format_difference,
    format_interval,
    format_p,
    format_value,
    metric_label,
)
from medtune.evaluation.human.rubric import CRITERIA
from medtune.evaluation.metrics import metric_named
from medtune.publishing.public_names import without_paths
from medtune.publishing.report.length_charts import token_counts
from medtune.publishing.report.reading_run import HumanRatings, ReportData
from medtune.records import Comparison, ComparisonRow, ControlName, Score, Verdict
from medtune.runtime.terminal import one_line

# A source may name as many question types as it has rows.
_MOST_STRATA = 80
# A sign, that of the chart of differences, and a word: neither colour nor shape alone says which it is.
VERDICT_WORDS: dict[Verdict, str] = {
    "better": "● better",
    "worse": "■ worse",
    "equivalent": "≈ equivalent",
    "cannot tell": "○ cannot tell",
    "too few groups": "◇ too few groups",
    "descriptive": "",
    "undefined": "◇ not comparable",
}
# What else a control is for than to be beaten.
_NO_RIVALS: dict[ControlName, str] = {CEILING: " (ceiling)", ON_TOP: " (on top of tuning)"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell's text, and the verdict that it tells, if any."""

    text: str
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table for the page. `words` are the columns that hold words and are aligned left; the first heads its row."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: tuple[int, ...] = (0,)


def make_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str | Cell]], *words: int) -> Table:
    """A table of texts and cells; the first column holds words, and so do those of `words`."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(caption, tuple(head), cells, (0, *words))


def verdict_cell(verdict: Verdict) -> Cell:
    """A verdict as a sign and a word."""
    return Cell(VERDICT_WORDS[verdict], verdict.replace(" ", "-"))


def score_table(rows: Sequence[ComparisonRow], title: str, *, splits: int) -> Table:
    """Both models by metric: values, difference and interval, and of primary metrics p, power and verdict.

    `splits` are those that p-values come from: none is below one in so many.
    """
    tested = any(row.is_primary for row in rows)
    head = ["Metric", "Baseline", "Tuned", "Difference", "Interval"]
    confidences = {row.confidence for row in rows}
    cells = [_score_cells(row, splits, tested=tested, own_confidence=len(confidences) > 1) for row in rows]
    if tested:
        head += ["p, Holm", "Detectable", "Verdict"]
    return make_table(f"{title}, {_confidences(rows)}", head, cells, *([7] if tested else []))


def _score_cells(row: ComparisonRow, splits: int, *, tested: bool, own_confidence: bool) -> list[str | Cell]:
    interval = format_interval(row.metric, row.interval)
    cells: list[str | Cell] = [
        metric_label(row.metric) + (" (lower is better)" if metric_named(row.metric).lower_is_better else ""),
        format_value(row.metric, row.baseline),
        format_value(row.metric, row.tuned),
        format_difference(row.metric, row.difference),
        f"{interval}\n{format_confidence(row.confidence)}" if own_confidence else interval,
    ]
    detectable = f"± {format_value(row.metric, row.detectable)}" if row.detectable else "-"
    # Splits that leave one part empty are not counted, so that the least is a little above one in so many.
    is_least = row.p_value is not None and row.p_value <= 1.05 / (splits + 1)
    p_value = format_p(row.p_adjusted, least=1.0 if is_least else 0.0)
    return [*cells, p_value, detectable, verdict_cell(row.verdict)] if tested else cells


def _confidences(rows: Sequence[ComparisonRow]) -> str:
    """The confidence of the rows' intervals, or the least and the most."""
    found = sorted({row.confidence for row in rows})
    least, most = format_confidence(found[0]), format_confidence(found[-1])
    return f"with {least} intervals" if least == most else f"with {least.removesuffix(' %')} to {most} intervals"


def shown_rows(comparison: Comparison) -> list[ComparisonRow]:
    """The metrics that are shown first: the primary ones, or where all or none were tested one of each kind."""
    rows = [row for row in comparison.rows if row.table == "standard"]
    primary = [row for row in rows if row.is_primary]
    return primary if 0 < len(primary) <= MOST_PRIMARY else [row for row in rows if row.metric in HEADLINE_METRICS]


def control_table(comparison: Comparison) -> Table:
    """Every system's primary metrics, and of each control how the tuned model compares with it."""
    metrics = [row.metric for row in shown_rows(comparison)]
    rows: list[list[str | Cell]] = []
    for name, label in (("baseline", "baseline"), ("tuned", "tuned model")):
        scores = comparison.scores[name]  # type: ignore[index]
        rows.append([label, *(_score(scores, metric) for metric in metrics)])
    for control in comparison.controls:
        # The ceiling is no rival: nobody expects to beat the reference with itself.
        rival = control.name != CEILING
        against = {row.metric: row.verdict for row in control.against_tuned if rival and row.is_primary}
        cells: list[str | Cell] = []
        for metric in metrics:
            value, verdict = _score(control.scores, metric), against.get(metric)
            cells.append(Cell(f"{value}\ntuned {verdict}", verdict.replace(" ", "-")) if verdict else value)
        rows.append([control.name.replace("_", " ") + _NO_RIVALS.get(control.name, ""), *cells])
    return make_table("On the same questions", ("Answers of", *map(metric_label, metrics)), rows)


def _score(scores: Mapping[str, Score], metric: str) -> str:
    return format_value(metric, scores[metric].value) if metric in scores else "-"


def strata_table(comparison: Comparison) -> Table | None:
    """Differences of the headline metrics on parts of the test rows."""
    shown = comparison.strata[:_MOST_STRATA]
    if not shown:
        return None
    known = {row.metric for row in shown_rows(comparison)}
    metrics = [metric for metric in shown[0].metrics if metric in known]
    rows = []
    for stratum in shown:
        cells = [
            f"{format_difference(metric, cell.difference)}\n{format_interval(metric, cell.ci95)}"
            for metric in metrics
            if (cell := stratum.metrics[metric])
        ]
        rows.append(
            (f"{stratum.kind}: {one_line(stratum.value)[:80]}", f"{stratum.n:,}", f"{stratum.groups:,}", *cells)
        )
    left = len(comparison.strata) - len(shown)
    more = f"; {left} more in strata.json" if left else ""
    head = ("Part of the test rows", "Rows", "Groups", *map(metric_label, metrics))
    return make_table(f"Tuned minus baseline, with 95 % intervals{more}", head, rows)


def length_table(data: ReportData) -> Table:
    """Lengths of references and answers, and how the answers ended."""
    counts = token_counts(data.predictions["baseline"], data.predictions["tuned"])
    lengths = data.comparison.lengths
    rows = []
    for name, label in (("references", "references"), ("baseline", "baseline"), ("tuned", "tuned model")):
        tokens = counts.get(name, [])
        of = lengths.get(name)  # type: ignore[call-overload]
        cut = of.share_at_cap if of else None
        if name == "references" and data.comparison.references:
            cut = data.comparison.references.share_over_cap
        rows.append(
            (
                label,
                f"{mean(tokens):.1f}" if tokens else "-",
                f"{median(tokens):g}" if tokens else "-",
                f"{max(tokens):,}" if tokens else "-",
                f"{of.length_ratio:.2f}" if of else "1.00",
                "-" if cut is None else f"{cut:.1%}",
            )
        )
    head = ("Text", "Mean tokens", "Median", "Longest", "Words (references = 1)", "Cut by the cap")
    return make_table("Lengths in the model's tokens", head, rows)


def signature_table(rows: Sequence[ComparisonRow]) -> Table:
    """How every metric was measured."""
    return make_table(
        "How each metric was measured",
        ("Metric", "n", "Groups", "Signature"),
        [(row.metric, f"{row.n:,}", f"{row.groups:,}", without_paths(row.signature)) for row in rows],
        3,
    )


def human_table(human: HumanRatings) -> Table | None:
    """Mean ratings of the criteria."""
    titles = {criterion.name: criterion.title for criterion in CRITERIA}
    alphas = {name: agreement.alpha for name, agreement in human.agreement.items()}
    rows = [
        (titles.get(name, name), f"{s.baseline:.2f}", f"{s.tuned:.2f}", f"{s.difference:+.2f}",
         f"[{s.low:+.2f}, {s.high:+.2f}]", f"{s.n:,}", _alpha(alphas.get(name)))
        for name, s in human.criteria.items()
    ]  # fmt: skip
    if not rows:
        return None
    head = ("Criterion", "Baseline", "Tuned", "Difference", "95 % interval", "Judgements", "Alpha")
    return make_table("Mean ratings by people, 1 to 5, higher is better", head, rows)


def _alpha(alpha: float | None) -> str:
    return "-" if alpha is None else f"{alpha:.2f}"
