"""How a metric's number is written, the same in the table, the terminal and the reading."""

from __future__ import annotations

import math

from medtune.evaluation.comparison import shown_digits

_LARGEST_PLAIN = 1e6  # beyond it, digits after the point say nothing and columns grow too wide


def format_value(metric: str, value: float) -> str:
    """Write a value of `metric`."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3e}" if abs(value) >= _LARGEST_PLAIN else f"{value:.{shown_digits(metric)}f}"


def format_difference(metric: str, difference: float) -> str:
    """Write tuned minus baseline with its sign; no sign where the digits shown are all zero."""
    if math.isnan(difference):
        return "nan"
    if round(difference, shown_digits(metric)) == 0:
        return format_value(metric, 0.0)
    return ("+" if difference > 0 else "") + format_value(metric, difference)
