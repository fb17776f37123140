"""Comparisons of two systems, measured or made up, for tests of what is said about them."""

from __future__ import annotations

from collections.abc import Sequence

from medtune.evaluation.comparison import compare_measured
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.control_answers import DESCRIPTIONS
from medtune.evaluation.encoder import Encoder
from medtune.evaluation.measurement import answer_lengths, measure_rows, reference_lengths, score_rows
from medtune.evaluation.metrics import METRIC_NAMES
from medtune.evaluation.significance import Subsamples
from medtune.records import Comparison, ComparisonRow, Control, ControlName, Lengths, Prediction, Verdict

OFFLINE = [metric for metric in METRIC_NAMES if metric != "bertscore_f1"]


NO_LENGTHS = Lengths(None, None, 1.0, None, None)


def compare(
    baseline: list[Prediction],
    tuned: list[Prediction],
    *,
    metrics: Sequence[str] = OFFLINE,
    encoder: Encoder | None = None,
    cap: int = 512,
) -> Comparison:
    measured = [measure_rows(side, metrics, encoder=encoder, caps="") for side in (baseline, tuned)]
    drawn = Subsamples.draw([row.group for row in baseline], splits=200, seed=0)
    return Comparison(
        rows=tuple(compare_measured(*measured, drawn)),
        scores={"baseline": score_rows(measured[0], drawn), "tuned": score_rows(measured[1], drawn)},
        lengths={"baseline": answer_lengths(baseline), "tuned": answer_lengths(tuned)},
        references=reference_lengths(baseline, cap),
    )


def read(baseline: list[Prediction], tuned: list[Prediction]) -> str:
    return "\n".join(reading_of(compare(baseline, tuned)).sentences)


def row(metric: str, baseline: float, tuned: float, verdict: Verdict = "better", **changes: object) -> ComparisonRow:
    ci95 = None if verdict == "undefined" else (tuned - baseline - 0.1, tuned - baseline + 0.1)
    fields: dict[str, object] = {
        "metric": metric,
        "baseline": baseline,
        "tuned": tuned,
        "difference": tuned - baseline,
        "ci95": ci95,
        "interval": ci95,
        "margin": 0.5,
        "p_value": 0.01,
        "p_adjusted": 0.04,
        "verdict": verdict,
        "rows_needed": None,
        "n": 500,
        "groups": 300,
        "signature": "one-way",
    }
    return ComparisonRow(**(fields | changes))  # type: ignore[arg-type]


def of_rows(*rows: ComparisonRow, **changes: object) -> Comparison:
    fields: dict[str, object] = {
        "rows": rows,
        "scores": {"baseline": {}, "tuned": {}},
        "lengths": {"baseline": NO_LENGTHS, "tuned": NO_LENGTHS},
    }
    return Comparison(**(fields | changes))  # type: ignore[arg-type]


def control(name: ControlName, *rows: ComparisonRow) -> Control:
    return Control(name, DESCRIPTIONS[name], {}, rows)


def cut_lengths(before: float, after: float) -> dict[str, Lengths]:
    return {"baseline": Lengths(10, 10, 1, 1 - before, before), "tuned": Lengths(10, 10, 1, 1 - after, after)}
