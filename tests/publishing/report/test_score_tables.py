"""Tables of scores: each metric with its verdict, controls beside them, and no more strata than a page can hold."""

from __future__ import annotations

from dataclasses import replace

from medtune.evaluation.human.human_scores import CriterionScore
from medtune.publishing.report import ReportData
from medtune.publishing.report.reading_run import HumanRatings
from medtune.publishing.report.score_tables import (
    Cell,
    control_table,
    human_table,
    length_table,
    make_table,
    score_table,
    signature_table,
    strata_table,
    verdict_cell,
)


def test_a_verdict_is_a_sign_and_a_word() -> None:
    assert verdict_cell("not distinguishable") == Cell("○ not distinguishable", "not-distinguishable")
    assert make_table("What", ("a", "b"), [("x", verdict_cell("worse"))], 1).rows == (
        (Cell("x"), Cell("■ worse", "worse")),
    )


def test_a_row_has_its_numbers_in_the_digits_of_its_metric(data: ReportData) -> None:
    perplexity = next(row for row in data.comparison.rows if row.metric == "perplexity")
    changed = replace(
        perplexity, baseline=20.0, tuned=12.346, difference=-7.654, ci95=(-9.0, -6.0), p_adjusted=1e-4, verdict="better"
    )
    (cells,) = score_table([changed], "Both").rows
    assert [cell.text for cell in cells] == [
        "perplexity (lower is better)", "20.00", "12.35", "-7.65", "[-9.00, -6.00]", "< 0.001", "● better",
    ]  # fmt: skip


def test_the_ceiling_is_no_rival(data: ReportData) -> None:
    (control,) = data.comparison.controls
    ceiling = replace(control, name="cut_reference", description="the reference itself")
    rows = control_table(replace(data.comparison, controls=(control, ceiling))).rows
    assert [row[0].text for row in rows] == [
        "baseline", "tuned model", control.description, "ceiling: the reference itself",
    ]  # fmt: skip
    assert any("tuned " in cell.text for cell in rows[2][1:])
    assert not any("tuned " in cell.text or cell.verdict for cell in rows[3][1:])
    with_it = replace(control, name="tuned_retrieval", description="the tuned model with more in its prompt")
    (*_, row) = control_table(replace(data.comparison, controls=(with_it,))).rows
    assert row[0].text == "on top of tuning: the tuned model with more in its prompt"
    # No model wrote the control's answers, so it has no perplexity.
    assert rows[2][-1].text == "-"


def test_strata_beyond_what_fits_are_counted(data: ReportData) -> None:
    (first, *_) = data.comparison.strata
    many = [replace(first, value=f"type {number}\n{'x' * 100}") for number in range(100)]
    table = strata_table(replace(data.comparison, strata=tuple(many)))
    assert table is not None
    assert len(table.rows) == 80
    assert table.caption.endswith("; 20 more in strata.json")
    assert table.rows[0][0].text.startswith(r"question type: type 0\nxxx")
    assert strata_table(replace(data.comparison, strata=())) is None


def test_lengths_are_given_where_every_row_tells_them(data: ReportData) -> None:
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in length_table(data).rows}
    counts = sorted(row.new_tokens for row in data.predictions["tuned"])
    assert rows["tuned model"][:3] == [f"{sum(counts) / 12:.1f}", f"{(counts[5] + counts[6]) / 2:g}", str(counts[-1])]
    assert rows["references"][3] == "1.00"
    uncounted = {name: [replace(row, new_tokens=None) for row in rows] for name, rows in data.predictions.items()}
    rows = {row[0].text: [cell.text for cell in row] for row in length_table(replace(data, predictions=uncounted)).rows}
    assert rows["tuned model"][1:4] == ["-", "-", "-"]


def test_signatures_tell_no_path(data: ReportData) -> None:
    row = replace(data.comparison.rows[0], signature="encoder:/home/me/encoders/mine|layer:3")
    assert signature_table([row]).rows[0][-1].text == "encoder:mine|layer:3"


def test_ratings_have_a_row_a_criterion() -> None:
    ratings = HumanRatings([], 4, None, {"clarity": CriterionScore(2, 3, 1, 0.5, 1.5, 1234)})
    table = human_table(ratings)
    assert table is not None
    assert [cell.text for cell in table.rows[0]] == ["Clarity", "2.00", "3.00", "+1.00", "[+0.50, +1.50]", "1,234"]
    assert human_table(replace(ratings, criteria={})) is None
