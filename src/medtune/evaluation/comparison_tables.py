"""The comparison as Markdown for a report, and as tables for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from medtune.evaluation.formatting import (
    HEADLINE_METRICS,
    escape_markdown,
    format_count,
    format_difference,
    format_interval,
    format_p,
    format_value,
)
from medtune.evaluation.metrics import metric_named
from medtune.records import Comparison, ComparisonRow, Score, Stratum, Verdict

_STYLES: dict[Verdict, str] = {"better": "green", "worse": "red", "not distinguishable": "dim", "undefined": "yellow"}
_NAME_WIDTH = 10  # columns that carry a file's name must leave room for the others


def comparison_markdown(comparison: Comparison, sentences: Sequence[str]) -> str:
    """Return the whole comparison as Markdown sections: reading, both tables, controls, strata, signatures.

    Signatures come below the tables in code spans: their `|` would end a cell.
    """
    standard = [row for row in comparison.rows if row.table == "standard"]
    compat = [row for row in comparison.rows if row.table == "compat"]
    lines = ["## Reading", "", *(f"- {sentence}" for sentence in sentences)]
    lines += ["", "## Scores", "", *_rows_markdown(standard, comparison.names)]
    if compat:
        lines += [
            "",
            "## Scores in the form of public write-ups",
            "",
            "BLEU 0 to 1 without smoothing, ROUGE without stemming and with Lsum on lines.",
            "",
            *_rows_markdown(compat, comparison.names),
        ]
    if comparison.controls:
        lines += ["", "## Controls", "", *_controls_markdown(comparison)]
    if comparison.strata:
        lines += ["", "## Strata", "", *_strata_markdown(comparison.strata)]
    lines += ["", "## Signatures", ""]
    for row in comparison.rows:
        lines.append(f"- {row.metric} (n = {row.n}, {format_count(row.groups, 'group')}): `{row.signature}`")
    return "\n".join(lines) + "\n"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the standard table and the controls; green is better and red is worse.

    The verdict is also a word, for terminals without colour and readers who don't tell red from green.
    """
    rows = [row for row in comparison.rows if row.table == "standard"]
    before, after = (name.removesuffix(" model") for name in comparison.names)
    title = f"{before} and {after} on the same {format_count(rows[0].n, 'row')}" if rows else "no rows"
    table = _new_table(title[0].upper() + title[1:])
    table.add_column("metric", no_wrap=True)
    for name in (before, after):
        table.add_column(Text("\n".join(wrap(name, _NAME_WIDTH))), justify="right", no_wrap=True)
    table.add_column("difference", justify="right", no_wrap=True)
    # The one column that may take two lines: with perplexities of many digits eighty columns are not enough.
    table.add_column("95 % interval", justify="right")
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row), Text(_word(row, console), style=_STYLES[row.verdict]))
    console.print(table)
    if any(row.verdict == "not distinguishable" for row in rows):
        console.print("unclear: not distinguishable from no difference at this n", style="dim", highlight=False)
    if comparison.controls:
        _print_systems(comparison, console)


def print_scores(scores: Mapping[str, Score], console: Console) -> None:
    """Print one system's scores with their intervals, both tables."""
    first = next(iter(scores.values()))
    table = _new_table(f"{format_count(first.n, 'row')} in {format_count(first.groups, 'group')}")
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    for metric, score in scores.items():
        interval = format_interval(metric, score.ci95, signed=False)
        table.add_row(metric, format_value(metric, score.value), interval)
    console.print(table)


def _new_table(title: str) -> Table:
    return Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def _print_systems(comparison: Comparison, console: Console) -> None:
    metrics = [row.metric for row in comparison.rows if row.metric in HEADLINE_METRICS]
    systems: dict[str, Mapping[str, Score]] = {name: scores for name, scores in comparison.scores.items()}  # noqa: C416
    systems |= {control.name: control.scores for control in comparison.controls}
    table = _new_table("Beside answers without tuning")
    table.add_column("answers of", no_wrap=True)
    for metric in metrics:
        table.add_column(metric, justify="right", no_wrap=True)
    for name, scores in systems.items():
        values = [format_value(metric, scores[metric].value) if metric in scores else "-" for metric in metrics]
        table.add_row(name.replace("_", " "), *values)
    console.print()
    console.print(table)


def _rows_markdown(rows: Sequence[ComparisonRow], names: Sequence[str]) -> list[str]:
    before, after = (name.removesuffix(" model").capitalize() for name in names)
    lines = [
        f"| Metric | {before} | {after} | Difference | 95 % interval | p | p, Holm | Verdict |",
        "| :-- | --: | --: | --: | :-: | --: | --: | :-- |",
    ]
    for row in rows:
        cells = [*_cells(row), format_p(row.p_value), format_p(row.p_adjusted), row.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _controls_markdown(comparison: Comparison) -> list[str]:
    metrics = [row.metric for row in comparison.rows if row.metric in HEADLINE_METRICS]
    lines = [f"| Answers | {' | '.join(metrics)} |", f"| :-- |{' --: |' * len(metrics)}"]
    for name, scores in comparison.scores.items():
        values = [format_value(metric, scores[metric].value) for metric in metrics]
        lines.append(f"| {name} | {' | '.join(values)} |")
    for control in comparison.controls:
        against = {row.metric: row for row in control.against_tuned}
        values = [
            f"{format_value(metric, against[metric].baseline)} (tuned: {against[metric].verdict})"
            if metric in against
            else "-"
            for metric in metrics
        ]
        lines.append(f"| {control.name}: {control.description} | {' | '.join(values)} |")
    return lines


def _strata_markdown(strata: Sequence[Stratum]) -> list[str]:
    metrics = [metric for metric in strata[0].metrics if metric in HEADLINE_METRICS]
    lines = [
        "Tuned minus baseline, with 95 % intervals; strata are many, so look, and do not test.",
        "",
        f"| Stratum | Rows | Groups | {' | '.join(metrics)} |",
        f"| :-- | --: | --: |{' :-: |' * len(metrics)}",
    ]
    for stratum in strata:
        cells = []
        for metric in metrics:
            cell = stratum.metrics[metric]
            cells.append(f"{format_difference(metric, cell.difference)} {format_interval(metric, cell.ci95)}")
        # A cell is one line, and nothing in it is markup: a question type is whatever the source says.
        name = escape_markdown(f"{stratum.kind}: {stratum.value}")
        lines.append(f"| {name} | {stratum.n} | {stratum.groups} | {' | '.join(cells)} |")
    return lines


def _cells(row: ComparisonRow) -> list[str]:
    values = [format_value(row.metric, value) for value in (row.baseline, row.tuned)]
    # A companion such as `bertscore_f1_rescaled` follows the metric whose name it repeats.
    metric = row.metric.replace(f"{metric_named(row.metric).companion_of}_", "  ")
    return [metric, *values, format_difference(row.metric, row.difference), format_interval(row.metric, row.ci95)]


def _word(row: ComparisonRow, console: Console) -> str:
    if row.verdict in ("undefined", "not distinguishable"):
        return row.verdict.replace("not distinguishable", "unclear")
    if console.options.ascii_only:
        return ("up, " if row.difference > 0 else "down, ") + row.verdict
    return ("↑ " if row.difference > 0 else "↓ ") + row.verdict
