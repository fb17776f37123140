"""How metrics are called and their numbers written, the same everywhere they are shown; and templates of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from medtune.evaluation.metrics import METRICS, metric_named
from medtune.runtime.terminal import one_line

if TYPE_CHECKING:
    from jinja2 import Template

# One metric of each kind, for verdicts and for tables of many systems: exact match is next to never anything but zero,
# and the other ROUGEs say what ROUGE-L says.
HEADLINE_METRICS = tuple(metric.name for metric in METRICS if metric.is_headline)
_MARKUP = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|~&$"})
_LARGEST_PLAIN = 1e6  # beyond it, digits after the point say nothing and columns grow too wide


def metric_label(metric: str) -> str:
    """Return what people call `metric`, in either table."""
    return metric_named(metric).label


def format_value(metric: str, value: float) -> str:
    """Write a value of `metric`."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3e}" if abs(value) >= _LARGEST_PLAIN else f"{value:.{metric_named(metric).digits}f}"


def format_difference(metric: str, difference: float) -> str:
    """Write tuned minus baseline with its sign; no sign where the digits shown are all zero."""
    if math.isnan(difference):
        return "nan"
    if round(difference, metric_named(metric).digits) == 0:
        return format_value(metric, 0.0)
    return ("+" if difference > 0 else "") + format_value(metric, difference)


def format_interval(metric: str, interval: tuple[float, float] | None, *, signed: bool = True) -> str:
    """Write a 95 % interval as `[low, high]`; a dash where there is none."""
    if interval is None:
        return "-"
    write = format_difference if signed else format_value
    return f"[{write(metric, interval[0])}, {write(metric, interval[1])}]"


def format_confidence(confidence: float) -> str:
    """Write a confidence in percent, with a decimal where it needs one: `95 %`, `98.3 %`."""
    return f"{100 * confidence:.1f}".removesuffix(".0") + " %"


def listed(items: Sequence[str]) -> str:
    """Items as a sentence has them, with semicolons where an item holds a comma."""
    if len(items) < 2:
        return "".join(items)
    separator = "; " if any("," in item for item in items) else ", "
    return f"{separator.join(items[:-1])} and {items[-1]}"


def format_p(p_value: float | None, *, least: float = 0.0) -> str:
    """Write a p-value; below a thousandth, as that. One at the `least` that so many splits can give may be smaller."""
    if p_value is None:
        return "-"
    if p_value <= least and p_value >= 0.001:
        return f"≤ {p_value:.3f}"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def format_count(number: int, noun: str) -> str:
    """Write how many there are: `1 row`, `1,600 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def escape_markdown(text: str) -> str:
    """`text` as one line in which nothing is markup, for a table's cell too: it may come from rows and settings."""
    return one_line(" ".join(text.split())).translate(_MARKUP)


def read_template(file: Traversable, *, autoescape: bool = False, **filters: Callable[..., str]) -> Template:
    """A template of one of the packages. A name that it is not given is an error, and a tag's own line leaves none."""
    return _compiled(file.read_text(encoding="utf-8"), autoescape, tuple(filters.items()))


@cache  # compiling one takes longer than filling it in
def _compiled(text: str, autoescape: bool, filters: tuple[tuple[str, Callable[..., str]], ...]) -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        autoescape=autoescape,
    )  # fmt: skip
    environment.filters |= dict(filters)
    return environment.from_string(text)


def with_article(name: str) -> str:
    """A model has one; a file, which may be called anything, has none."""
    return f"the {name}" if name in ("baseline", "tuned model") else name
