"""The comparison as Markdown for a report, and as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medtune.evaluation.comparison import Verdict, judge
from medtune.evaluation.formatting import format_difference, format_value
from medtune.records import ComparisonRow

_BETTER: dict[Verdict, str] = {"better": "yes", "worse": "no", "equal": "same", "undefined": "undefined"}
_STYLES: dict[Verdict, str] = {"better": "green", "worse": "red", "equal": "dim", "undefined": "yellow"}


def comparison_markdown(rows: Sequence[ComparisonRow], sentences: Sequence[str], *, heading_level: int = 2) -> str:
    """Return the table, the reading and the signatures as Markdown under three headings of `heading_level`.

    Signatures stand below the table, in code spans: their `|` would end a cell.
    """
    heading = "#" * heading_level
    lines = [
        f"{heading} Scores",
        "",
        "| Metric | Baseline | Tuned | Difference | Better? |",
        "| :-- | --: | --: | --: | :-- |",
    ]
    for row in rows:
        lines.append(f"| {' | '.join([*_cells(row), _BETTER[judge(row)]])} |")
    lines += ["", f"{heading} Reading", "", *(f"- {sentence}" for sentence in sentences)]
    lines += ["", f"{heading} Signatures", "", *(f"- {row.metric} (n = {row.n}): `{row.signature}`" for row in rows)]
    return "\n".join(lines) + "\n"


def print_comparison(rows: Sequence[ComparisonRow], console: Console) -> None:
    """Print the table; arrows point the way the number went, green is better and red is worse.

    The verdict stands in words too, for terminals without colour and readers who don't tell red from green.
    """
    table = Table(title="Baseline and tuned model on the same rows")
    table.add_column("metric", no_wrap=True)
    for column in ("baseline", "tuned", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        verdict = judge(row)
        word = verdict if verdict in ("equal", "undefined") else f"{_arrow(row, console)} {verdict}"
        table.add_row(*_cells(row), Text(word, style=_STYLES[verdict]))
    console.print(table)


def _cells(row: ComparisonRow) -> list[str]:
    values = [format_value(row.metric, value) for value in (row.baseline, row.tuned)]
    return [row.metric, *values, format_difference(row.metric, row.difference)]


def _arrow(row: ComparisonRow, console: Console) -> str:
    if console.options.ascii_only:
        return "up," if row.difference > 0 else "down,"
    return "↑" if row.difference > 0 else "↓"
