"""Results that a notebook or `print` shows as the tables of the command line."""

from __future__ import annotations

from dataclasses import dataclass, fields
from io import StringIO
from typing import TYPE_CHECKING, Literal

from medtune.pipeline.doctor.findings import Finding
from medtune.records import Comparison, Score

if TYPE_CHECKING:
    from rich.console import Console

    from medtune.pipeline.plan import Forecast, RowSizes
    from medtune.pipeline.plan_power import Power

_WIDTH = 100
_PAGE = '<pre style="white-space: pre-wrap; line-height: 1.3">{code}</pre>'


class Shown:
    """Something with a text for terminals; notebooks get the same, escaped and in colour."""

    __slots__ = ()

    def _print(self, console: Console) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._console(None).export_text().strip("\n")

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return self._console("truecolor").export_html(inline_styles=True, code_format=_PAGE)

    def _console(self, colours: Literal["truecolor"] | None) -> Console:
        from rich.console import Console

        # Rows wrap as in a terminal, and not as in a log: the reader is a person.
        console = Console(
            file=StringIO(), record=True, width=_WIDTH, color_system=colours, force_terminal=True, force_jupyter=False
        )
        self._print(console)
        return console


class ShownChart(str):
    """A chart as SVG."""

    def _repr_html_(self) -> str:
        return str(self)


class Figures(dict[str, ShownChart]):
    """Charts by their names."""

    def __repr__(self) -> str:
        return f"Figures({', '.join(self)})"

    def _repr_html_(self) -> str:
        return "".join(f"<div>{chart}</div>" for chart in self.values())


class ShownComparison(Shown, Comparison):
    """A comparison; `reading` says in sentences what its numbers show."""

    __slots__ = ()

    @classmethod
    def of(cls, comparison: Comparison) -> ShownComparison:
        """The same comparison, to be shown."""
        return cls(**{field.name: getattr(comparison, field.name) for field in fields(Comparison)})

    @property
    def reading(self) -> list[str]:
        """What the numbers show, a sentence or two a point, generated from them."""
        from medtune.evaluation.comparison_sentences import reading_of

        return reading_of(self).sentences

    def _print(self, console: Console) -> None:
        from medtune.evaluation.comparison_tables import print_comparison
        from medtune.runtime.terminal import print_points

        print_comparison(self, console)
        print_points(self.reading, console)


class Scores(Shown, dict[str, Score]):
    """Metric → score; under the table, how each was measured."""

    __slots__ = ()

    def _print(self, console: Console) -> None:
        from medtune.evaluation.comparison_tables import print_measured

        print_measured(self, console)


class Findings(Shown, tuple[Finding, ...]):
    """What `doctor` found, in the order in which it looked."""

    __slots__ = ()

    @property
    def failures(self) -> list[Finding]:
        """What would keep a run from working."""
        return [finding for finding in self if finding.state == "failure"]

    def _print(self, console: Console) -> None:
        from medtune.pipeline.doctor.findings import print_finding, summary

        for finding in self:
            print_finding(finding, console)
        console.print(summary(self), highlight=False)


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """What a recipe would take: a forecast for each GPU, or the reason why training would not fit there.

    `power` is what its test set can show, None where nothing is known of the test rows.
    """

    forecasts: dict[str, Forecast | str]
    rows: RowSizes
    power: Power | None = None

    def _print(self, console: Console) -> None:
        from medtune.pipeline.plan_tables import print_plan

        print_plan(self.forecasts, self.rows, console, self.power)
