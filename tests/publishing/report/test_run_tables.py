"""Tables of how a run went: curves in a few lines, costs, leakage, choices; and what is damaged is a dash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from medtune.publishing.report import ReportData
from medtune.publishing.report.reading_run import Step
from medtune.publishing.report.run_tables import (
    audit_sentences,
    audit_tables,
    choice_table,
    cost_sentences,
    cost_table,
    curve_table,
    duration,
    identity_table,
)
from medtune.publishing.report.score_tables import Table


def texts(table: Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in row] for row in table.rows]


def test_a_curve_is_told_in_twelve_lines_and_its_validations() -> None:
    history = [Step(step, loss=1 / step, tokens=100 * step) for step in range(1, 1001)]
    rows = texts(curve_table([*history, Step(500, validation_loss=0.25)]))
    assert len(rows) == 13
    assert (rows[0][0], rows[-1][0]) == ("1", "1,000")
    assert ["500", "50,000", "0.0020", "0.2500", "", ""] in rows
    assert curve_table([Step(1, validation_loss=1.0)]) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (59.4, "59.4 s"), (60, "1 min 0 s"), (7290, "2 h 1 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def stages(**train: object) -> Mapping[str, Any]:
    return {"stages": {"data": {"seconds": 10.0}, "train": {"seconds": 50.0, **train}, "report": {"seconds": 900.0}}}


def test_costs_leave_the_report_itself_out() -> None:
    assert texts(cost_table(stages(peak_gpu_bytes=3 << 30, peak_rss_bytes=1 << 30))) == [
        ["data", "10.0 s", "-", "-"],
        ["train", "50.0 s", "3.00", "1.00"],
    ]
    assert cost_sentences(stages()) == ["The stages took 1 min 0 s together (0.02 hours)."]
    planned = cost_sentences(stages(peak_gpu_bytes=3 << 30, plan={"peak_bytes": 2 << 30}, training={"tokens": 5000}))
    assert planned[1:] == [
        "Training was planned to peak at 2.00 GiB of GPU memory and peaked at 3.00 GiB (+50.0%).",
        "Training took in 5,000 tokens in 50.0 s, 100 tokens a second with loading and validation.",
    ]
    assert "without a GPU only the whole process is measured" in cost_sentences(stages(plan={"peak_bytes": 1}))[1]


def test_the_audit_in_tables_and_sentences(data: ReportData) -> None:
    rows, leaks, lengths = map(texts, audit_tables(data.audit))
    assert rows[:2] == [["rows read", "21"], ["rows kept", "20"]]
    assert ["topics", "9"] in rows
    assert leaks[0] == ["exact question", "0.0%", "25.0%"]
    assert leaks[-1] == ["focus", "not given", "not given"]
    assert lengths == [[name, "11.5", "11", "14", "30"] for name in ("question", "answer", "row")]
    duplicates, truncation = audit_sentences(data.audit)
    assert duplicates.startswith("2 rows (10.0%) have an equal or nearly equal answer elsewhere; 1 rows hold")
    assert truncation.endswith("of 6 training rows 1 are cut and 0 dropped; 1.0% of their tokens are lost.")


def test_choices_come_with_their_reasons() -> None:
    dtype = {"dtype": {"value": "float16", "reason": "found in /home/me/notes.txt"}, "odd": "text"}
    assert texts(choice_table(stages(choices=dtype, plan={"weights": "nf4", "parts": [1]}))) == [
        ["train", "dtype", "float16", "found in notes.txt"],
        ["train", "odd", "-", "-"],
        ["train", "weights", "nf4", "the plan of the step"],
        ["train", "parts", "-", "the plan of the step"],
    ]
    assert choice_table({}) is None


def test_an_identity_that_is_not_recorded_is_a_dash(data: ReportData) -> None:
    values = dict(row for row in texts(identity_table(replace(data, provenance={"hardware": {"gpus": "?"}}))))
    assert (values["GPUs"], values["CPU cores"], values["memory, GiB"]) == ("none", "-", "0.0")
    assert values["base model"] == "medtune:demo"
    assert texts(identity_table(data))[6] == ["GPUs", "Tesla T4, 15.0 GiB, compute capability 7.5"]
