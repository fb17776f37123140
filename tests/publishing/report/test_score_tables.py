"""Tables of scores: each metric with its verdict, controls beside them, and no more strata than a page can hold."""

from __future__ import annotations

from dataclasses import replace

from comparisons import row
from medtune.evaluation.human.agreement import RaterAgreement
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
    shown_rows,
    signature_table,
    strata_table,
    verdict_cell,
)


def test_a_verdict_is_a_sign_and_a_word() -> None:
    assert verdict_cell("cannot tell") == Cell("○ cannot tell", "cannot-tell")
    assert verdict_cell("equivalent") == Cell("≈ equivalent", "equivalent")
    assert make_table("What", ("a", "b"), [("x", verdict_cell("worse"))], 1).rows == (
        (Cell("x"), Cell("■ worse", "worse")),
    )


def test_a_row_has_its_numbers_in_the_digits_of_its_metric() -> None:
    perplexity = row(
        "perplexity", 20.0, 12.346, p_adjusted=1e-4, interval=(-9.0, -6.0), confidence=0.983, detectable=0.456
    )
    table = score_table([perplexity], "Both", splits=1000)
    assert [cell.text for cell in table.rows[0]] == [
        "perplexity (lower is better)", "20.00", "12.35", "-7.65", "[-9.00, -6.00]", "< 0.001", "± 0.46", "● better",
    ]  # fmt: skip
    assert table.head[-3:] == ("p, Holm", "Detectable", "Verdict")


def test_only_primary_metrics_have_a_verdict() -> None:
    descriptive = row("bleu", 1.0, 2.0, "descriptive", interval=(0.5, 1.5))
    assert score_table([descriptive], "Other", splits=1000).head == (
        "Metric",
        "Baseline",
        "Tuned",
        "Difference",
        "Interval",
    )
    cells = score_table([row("rougeL", 0.1, 0.2), descriptive], "Both", splits=1000).rows[1]
    assert [cell.text for cell in cells][-3:] == ["0.040", "-", ""]


def test_no_power_is_told_where_all_answers_score_alike() -> None:
    cells = score_table([row("exact_match", 0.0, 0.0, "cannot tell", detectable=0.0)], "Both", splits=1000).rows[0]
    assert cells[-2].text == "-"


def test_rows_of_unlike_confidence_tell_their_own() -> None:
    rows = [row("bleu", 1.0, 2.0, confidence=0.975), row("rougeL", 0.1, 0.2, confidence=0.95)]
    assert [cells[4].text.split("\n") for cells in score_table(rows, "Both", splits=1000).rows] == [
        ["[+0.90, +1.10]", "97.5 %"], ["[0.0000, +0.2000]", "95 %"],
    ]  # fmt: skip


def test_the_least_p_that_the_splits_can_give_may_be_less() -> None:
    rows = [row("bleu", 1.0, 2.0, p_value=1 / 1001, p_adjusted=3 / 1001), row("rougeL", 0.1, 0.2, p_value=0.002)]
    assert [cells[5].text for cells in score_table(rows, "Both", splits=1000).rows] == ["≤ 0.003", "0.040"]


def test_the_caption_tells_the_confidence_of_the_intervals() -> None:
    rows = [row("bleu", 1.0, 2.0, confidence=confidence) for confidence in (0.975, 0.95, 1 - 0.05 / 3)]
    assert score_table(rows[:1], "Scores", splits=1000).caption == "Scores, with 97.5 % intervals"
    assert score_table(rows, "Scores", splits=1000).caption == "Scores, with 95 to 98.3 % intervals"


def test_primary_metrics_are_shown_first_and_of_runs_that_tested_all_one_of_each_kind(data: ReportData) -> None:
    every = ("bleu", "rouge1", "rougeL", "exact_match", "perplexity", "bits_per_byte")

    def shown(primary: tuple[str, ...]) -> list[str]:
        rows = [row(name, 1.0, 2.0, "better" if name in primary else "descriptive") for name in every]
        compat = row("compat_rougeL", 0.1, 0.2, "better", table="compat")
        return [row.metric for row in shown_rows(replace(data.comparison, rows=(*rows, compat)))]

    assert shown(("rouge1", "perplexity")) == ["rouge1", "perplexity"]
    assert shown(every) == shown(()) == ["bleu", "rougeL", "perplexity"]


def test_the_ceiling_is_no_rival(data: ReportData) -> None:
    (control,) = data.comparison.controls
    ceiling = replace(control, name="cut_reference", description="the reference itself")
    rows = control_table(replace(data.comparison, controls=(control, ceiling))).rows
    assert [row[0].text for row in rows] == [
        "baseline", "tuned model", "random answer", "cut reference (ceiling)",
    ]  # fmt: skip
    assert any("tuned " in cell.text for cell in rows[2][1:])
    assert not any("tuned " in cell.text or cell.verdict for cell in rows[3][1:])
    with_it = replace(control, name="tuned_retrieval", description="the tuned model with more in its prompt")
    (*_, last) = control_table(replace(data.comparison, controls=(with_it,))).rows
    assert last[0].text == "tuned retrieval (on top of tuning)"
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
    ratings = HumanRatings([], {"clarity": CriterionScore(2, 3, 1, 0.5, 1.5, 1234)})
    agreement = {"clarity": RaterAgreement(0.21, 40, "ordinal")}
    table = human_table(replace(ratings, agreement=agreement))
    assert table is not None
    assert [cell.text for cell in table.rows[0]] == [
        "Clarity",
        "2.00",
        "3.00",
        "+1.00",
        "[+0.50, +1.50]",
        "1,234",
        "0.21",
    ]
    assert human_table(replace(ratings, criteria={})) is None
