"""The comparison as Markdown for a report, and as tables for a terminal of 80 columns."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from medtune.evaluation.formatting import (
    HEADLINE_METRICS,
    escape_markdown,
    format_confidence,
    format_count,
    format_difference,
    format_interval,
    format_p,
    format_value,
    read_template,
)
from medtune.evaluation.metrics import metric_named
from medtune.evaluation.text_warnings import text_warnings
from medtune.records import Comparison, ComparisonRow, Score, StratumMetric, Verdict

_STYLES: dict[Verdict, str] = {
    "better": "green", "worse": "red", "equivalent": "cyan", "cannot tell": "dim", "too few groups": "yellow",
    "descriptive": "dim", "undefined": "yellow",
}  # fmt: skip
# Columns that carry a file's name must leave room for the others, and are wider only where there is some.
_NAME_WIDTH = 9
_UNBOUNDED = 10_000


def comparison_markdown(comparison: Comparison, sentences: Sequence[str]) -> str:
    """The whole comparison as Markdown sections: reading, both tables, controls, strata, signatures.

    Signatures come below the tables in code spans: their `|` would end a cell.
    """
    before, after = (name.removesuffix(" model").capitalize() for name in comparison.names)
    scores: dict[str, list[list[str]]] = {"standard": [], "compat": []}
    for row in comparison.rows:
        scores[row.table].append([*_cells(row), format_p(row.p_value), format_p(row.p_adjusted), row.verdict])
    # A cell is one line, and nothing in it is markup: a question type is whatever the source says.
    template = read_template(
        files("medtune.evaluation") / "comparison.md.jinja",
        md=escape_markdown, difference=_difference, counted=format_count,
    )  # fmt: skip
    return template.render(
        sentences=sentences,
        before=before,
        after=after,
        scores=scores,
        metrics=_headline(row.metric for row in comparison.rows),
        controls=_control_cells(comparison) if comparison.controls else (),
        strata=comparison.strata,
        strata_metrics=_headline(comparison.strata[0].metrics) if comparison.strata else (),
        rows=comparison.rows,
    )


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the standard table and the controls; green is better and red is worse.

    The verdict is also a word, for terminals without colour and readers who don't tell red from green.
    """
    rows = [row for row in comparison.rows if row.table == "standard"]
    before, after = (name.removesuffix(" model") for name in comparison.names)
    title = f"{before} and {after} on the same {format_count(rows[0].n, 'row')}" if rows else "no rows"
    widths = _name_widths((before, after), rows, console)
    systems = [Text(_broken(name, width)) for name, width in zip((before, after), widths, strict=True)]
    if before == "baseline":  # and no file's name
        title = title.capitalize()
    console.print(_score_table(title, systems, rows, console))
    tested = [row for row in rows if row.is_primary]
    if tested:
        widest = format_confidence(max(row.confidence for row in tested))
        note = (
            f"Rows with a verdict are primary: intervals of up to {widest}, as Holm's correction asks."
            if (len(tested) > 1)
            else "The row with a verdict is primary."
        )
        console.print(f"{note} The others are descriptive, at 95 %.", style="dim", highlight=False)
    if comparison.controls:
        _print_systems(comparison, console)


def _score_table(title: str, systems: Sequence[str | Text], rows: Sequence[ComparisonRow], console: Console) -> Table:
    table = _new_table(title, "metric", *systems, "difference")
    # The one column that may take two lines: with perplexities of many digits eighty columns are not enough.
    table.add_column("interval", justify="right")
    table.add_column("", max_width=len("down, better" if console.options.ascii_only else "equivalent"))
    for row in rows:
        table.add_row(*_cells(row), Text(_word(row, console), style=_STYLES[row.verdict]))
    return table


def _name_widths(names: Sequence[str], rows: Sequence[ComparisonRow], console: Console) -> list[int]:
    """How wide each system's name may be: enough for its longest word, if the rest of the table leaves that."""
    longest = [max(_NAME_WIDTH, *(len(word.rstrip()) for word in _words(name))) for name in names]
    table = _score_table("", ("", ""), rows, console)
    others = Measurement.get(console, console.options.update(max_width=_UNBOUNDED), table).maximum
    cells = [_cells(row) for row in rows]
    before, after = (max((len(row[column]) for row in cells), default=0) for column in (1, 2))
    room = console.width - others + before + after
    if room < 2 * _NAME_WIDTH:  # intervals take two lines only where even short names do not fit beside them
        ends = [end for row in cells for end in row[4].split(" ")]
        room += max(len(row[4]) for row in cells) - max(map(len, ends))
    if sum(longest) <= room:
        return longest
    return [max(_NAME_WIDTH, min(width, room // 2)) for width in longest]


def _words(name: str) -> list[str]:
    """The words of a name, each with the space or sign at which a line may end."""
    return re.split(r"(?<=[\s_./\\-])(?=[^\s_./\\-])", name)


def _broken(name: str, width: int) -> str:
    """`name` in lines of at most `width` that end at words, except where a word is longer."""
    lines = [""]
    for word in _words(name):
        if lines[-1] and len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(line.strip() for line in lines)


def print_scores(scores: Mapping[str, Score], console: Console) -> None:
    """Print one system's scores with their intervals, both tables."""
    first = next(iter(scores.values()))
    title = f"{format_count(first.n, 'row')} in {format_count(first.groups, 'group')}"
    table = _new_table(title, "metric", "value", "95 % interval")
    for metric, score in scores.items():
        interval = format_interval(metric, score.ci95, signed=False)
        table.add_row(metric, format_value(metric, score.value), interval)
    console.print(table)


def print_measured(scores: Mapping[str, Score], console: Console) -> None:
    """Print one system's scores, how each was measured, and what readers have to know of the texts."""
    print_scores(scores, console)
    for metric, score in scores.items():
        console.print(f"{metric}: {score.signature}", highlight=False, markup=False, style="dim", soft_wrap=True)
    for warning in text_warnings({"": scores}):
        console.print(warning, highlight=False, markup=False, soft_wrap=True)


def _new_table(title: str, first: str, *numbers: str | Text) -> Table:
    columns = [Column(first, no_wrap=True), *(Column(name, justify="right", no_wrap=True) for name in numbers)]
    return Table(*columns, title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


def _print_systems(comparison: Comparison, console: Console) -> None:
    metrics = _headline(row.metric for row in comparison.rows)
    systems: dict[str, Mapping[str, Score]] = {name: scores for name, scores in comparison.scores.items()}  # noqa: C416
    systems |= {control.name: control.scores for control in comparison.controls}
    table = _new_table("Beside the controls", "answers of", *metrics)
    for name, scores in systems.items():
        values = [format_value(metric, scores[metric].value) if metric in scores else "-" for metric in metrics]
        table.add_row(name.replace("_", " "), *values)
    console.print()
    console.print(table)


def _control_cells(comparison: Comparison) -> Iterator[tuple[str, list[str]]]:
    metrics = _headline(row.metric for row in comparison.rows)
    for name, scores in comparison.scores.items():
        yield name, [format_value(metric, scores[metric].value) for metric in metrics]
    for control in comparison.controls:
        against = {row.metric: row for row in control.against_tuned}
        yield (
            f"{control.name}: {control.description}",
            [
                f"{format_value(metric, against[metric].baseline)} (tuned: {against[metric].verdict})"
                if metric in against
                else "-"
                for metric in metrics
            ],
        )


def _difference(cell: StratumMetric, metric: str) -> str:
    return f"{format_difference(metric, cell.difference)} {format_interval(metric, cell.ci95)}"


def _headline(metrics: Iterable[str]) -> list[str]:
    return [metric for metric in metrics if metric in HEADLINE_METRICS]


def _cells(row: ComparisonRow) -> list[str]:
    values = [format_value(row.metric, value) for value in (row.baseline, row.tuned)]
    # A companion such as `bertscore_f1_rescaled` follows the metric whose name it repeats.
    metric = row.metric.replace(f"{metric_named(row.metric).companion_of}_", "  ")
    return [metric, *values, format_difference(row.metric, row.difference), format_interval(row.metric, row.interval)]


def _word(row: ComparisonRow, console: Console) -> str:
    if row.verdict not in ("better", "worse"):
        return "" if row.verdict == "descriptive" else row.verdict
    if console.options.ascii_only:
        return ("up, " if row.difference > 0 else "down, ") + row.verdict
    return ("↑ " if row.difference > 0 else "↓ ") + row.verdict
