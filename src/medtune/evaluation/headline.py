"""The sentence that a hurried reader takes home, from baseline, controls, cap, power and the number of trainings."""

import math
from collections.abc import Mapping, Sequence

from medtune.evaluation.control_answers import CEILING, ON_TOP
from medtune.evaluation.formatting import format_count, format_value, listed, metric_label
from medtune.evaluation.metrics import metric_named
from medtune.evaluation.significance import fewest_groups
from medtune.records import Comparison, ComparisonRow, Control, ControlName, Verdict

# Above this share of cut references or answers, overlap scores measure the cap as much as the model.
CUT_SHARE_WARNING = 0.05
_RIVALS: dict[ControlName, str] = {
    "random_answer": "a random training answer",
    "nearest_question": "the answer of the nearest training question",
    "few_shot": "the untouched model with three worked examples in its prompt",
    "retrieval": "the untouched model with the nearest training answers in its prompt",
}
# What each rival shows if it is not beaten, most damning first.
_STYLE: tuple[ControlName, ...] = ("random_answer",)
_NO_USE: tuple[ControlName, ...] = ("nearest_question", "retrieval", "few_shot")


def headline(comparison: Comparison) -> str:
    """One sentence on what tuning did, and where it applies what limits it: the cap, and a single training."""
    rows = [row for row in comparison.rows if row.is_primary]
    sentence = _verdict_sentence(comparison, rows)
    if any(row.verdict in ("better", "worse", "equivalent") for row in rows):
        sentence += _limits(comparison)
    return sentence


def rivals(comparison: Comparison) -> list[Control]:
    """The controls that tuning has to beat: neither the ceiling nor the tuned model with more in its prompt."""
    return [control for control in comparison.controls if control.name not in (CEILING, ON_TOP)]


def rivals_ahead(comparison: Comparison) -> dict[ControlName, list[ComparisonRow]]:
    """The controls that beat the tuned model by a primary metric, with these rows; ceiling and tuned model are none."""
    ahead = {control.name: _by(control, "worse") for control in rivals(comparison)}
    return {name: rows for name, rows in ahead.items() if rows}


def best_control(comparison: Comparison, metric: str) -> tuple[ControlName, float] | None:
    """The control that scores best by `metric` without any tuning, and its value; None where none has one."""
    values = {control.name: control.scores[metric].value for control in rivals(comparison) if metric in control.scores}
    best = best_named(values, metric)
    return None if best is None else (best, values[best])


def best_named(values: Mapping[ControlName, float], metric: str) -> ControlName | None:
    """Whose value of `metric` is best, the first where several are; None where none is a number."""
    known = [name for name, value in values.items() if not math.isnan(value)]
    choose = min if metric_named(metric).lower_is_better else max
    return choose(known, key=values.__getitem__, default=None)


def _verdict_sentence(comparison: Comparison, rows: Sequence[ComparisonRow]) -> str:
    before, after = (name if name not in ("baseline", "tuned model") else f"the {name}" for name in comparison.names)
    by = {verdict: [metric_label(row.metric) for row in rows if row.verdict == verdict] for verdict in _VERDICTS}
    if not rows or len(by["undefined"]) == len(rows):
        return "No verdict: the scores cannot be compared."
    if by["too few groups"]:
        return (
            f"No verdict: {rows[0].groups} independent groups of rows can show nothing; a test over "
            f"{format_count(len(rows), 'primary metric')} takes at least {fewest_groups(len(rows))}."
        )
    if by["better"] and by["worse"]:
        return f"Mixed: {after} is better than {before} by {listed(by['better'])}, and worse by {listed(by['worse'])}."
    if by["worse"]:
        is_worse = f"{after} is worse than {before} by {listed(by['worse'])}."
        return f"Tuning hurt: {is_worse}" if _is_run(comparison) else _capital(is_worse)
    if by["better"]:
        return _improved(comparison, rows, by["better"], (before, after))
    if len(by["equivalent"]) == len(rows):
        margins = listed([f"{metric_label(row.metric)} ± {row.margin:g}" for row in rows])
        return f"No difference that matters: {after} and {before} are equivalent within the margins ({margins})."
    return (
        f"Cannot tell: this test set shows no difference between {after} and {before}, and would miss one "
        f"smaller than {_detectable(rows)}."
    )


_VERDICTS: tuple[Verdict, ...] = ("better", "worse", "equivalent", "cannot tell", "too few groups", "undefined")


def _improved(
    comparison: Comparison, rows: Sequence[ComparisonRow], metrics: Sequence[str], names: tuple[str, str]
) -> str:
    before, after = names
    every = "all" if len(metrics) == len(rows) else f"{len(metrics)} of {len(rows)}"
    beats = f"{after} beats {before} by {listed(metrics)}"
    counted = f" ({every} primary metrics)" if len(rows) > 1 else ""
    if not _is_run(comparison):
        return f"{_capital(beats)}{counted}."
    ahead = rivals_ahead(comparison)
    if style := next((name for name in _STYLE if name in ahead), None):
        lost = f"{_RIVALS[style]} scores higher ({_values(ahead[style][0])})"
        return f"It learned the style, not the content: it beats {before}, but {lost}."
    if rival := next((name for name in _NO_USE if name in ahead), None):
        lost = f"{_RIVALS[rival]} scores higher ({_values(ahead[rival][0])})"
        return f"Tuning helped, but less than a simpler way: {beats}, but {lost}."
    unclear = [
        _RIVALS[control.name]
        for control in comparison.controls
        if control.name in _RIVALS and _by(control, "cannot tell", "equivalent")
    ]
    helped = f"Tuning helped: {beats}{counted}"
    if unclear:
        return f"{helped}, but is not shown to beat {unclear[0]}."
    has_rivals = any(control.name in _RIVALS for control in comparison.controls)
    return f"{helped}" + (", and beats every rival." if has_rivals else ".")


def _values(row: ComparisonRow) -> str:
    """A control's value against the tuned model's."""
    control, tuned = (format_value(row.metric, value) for value in (row.baseline, row.tuned))
    return f"{metric_label(row.metric)} {control} against {tuned}"


def _is_run(comparison: Comparison) -> bool:
    """Whether a model and its tuning are compared; files and two runs may hold answers from anywhere."""
    return comparison.names[1] == "tuned model"


def _capital(text: str) -> str:
    """A sentence's beginning; a file's name stays as it is."""
    return "T" + text[1:] if text.startswith("the ") else text


def _by(control: Control, *verdicts: Verdict) -> list[ComparisonRow]:
    """The primary rows of a control with these verdicts on the tuned model."""
    return [row for row in control.against_tuned if row.is_primary and row.verdict in verdicts]


def _detectable(rows: Sequence[ComparisonRow]) -> str:
    found = [
        f"{format_value(row.metric, row.detectable)} ({metric_label(row.metric)})"
        for row in rows
        if row.detectable is not None and row.verdict == "cannot tell"
    ]
    return listed(found) if found else "an unknown size"


def _limits(comparison: Comparison) -> str:
    share = comparison.lengths["tuned"].share_at_cap if "tuned" in comparison.lengths else None
    cut = f" The cap cut {share:.0%} of its answers." if share is not None and share > CUT_SHARE_WARNING else ""
    one = " One training: another seed may score differently." if _is_run(comparison) else ""
    return cut + one
