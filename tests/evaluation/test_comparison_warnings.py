from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from comparisons import compare, of_rows, row
from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.comparison_warnings import comparison_warnings
from medtune.records import Comparison, GroupSizes, Prediction, ReferenceLengths, Stratum

MakePrediction = Callable[..., Prediction]


def warnings(comparison: Comparison) -> list[str]:
    return [sentence for sentence in reading_of(comparison).sentences if sentence.startswith("Warning:")]


@pytest.mark.parametrize(("share", "warned"), [(0.0, False), (0.05, False), (0.0501, True), (0.658, True)])
def test_a_cap_that_cuts_more_than_five_percent_of_the_references(share: float, warned: bool) -> None:
    comparison = of_rows(row("bleu", 5, 9), references=ReferenceLengths(128, 200.0, 150.0, share))
    expected = (
        f"Warning: the cap of 128 new tokens cuts {share:.1%} of the references, so the overlap scores measure the cap "
        "too; raise generation.max_new_tokens and evaluate again."
    )
    assert warnings(comparison) == ([expected] if warned else [])


@pytest.mark.parametrize(
    ("cut", "warned"),
    [
        ((0, 0), ""),
        ((1, 1), ""),
        ((2, 1), "10% of the answers of the baseline,"),
        ((0, 2), "10% of the answers of the tuned model,"),
        ((2, 20), "10% of the answers of the baseline and 100% of the answers of the tuned model,"),
    ],
)
def test_the_cap_is_told_and_warned_of_above_five_percent(
    make_prediction: MakePrediction, cut: tuple[int, int], warned: str
) -> None:
    sides = [
        [
            make_prediction(id=f"row-{i}", new_tokens=10 + i, finish_reason="length" if i < count else "stop")
            for i in range(20)
        ]
        for count in cut
    ]
    comparison = compare(*sides)
    text = "\n".join(reading_of(comparison).sentences)
    assert f"cut {cut[0] / 20:.1%} of the answers before and {cut[1] / 20:.1%} after" in text
    assert "Answers took 19.5 new tokens on average before and 19.5 after; the references have 4.0." in text
    found = [warning for warning in warnings(comparison) if "of the answers" in warning]
    assert bool(found) == bool(warned)
    assert warned in "".join(found)


def test_few_groups() -> None:
    rows = [row("bleu", 5, 9), row("rougeL", 0.2, 0.3), row("perplexity", 9, 5)]
    sizes = GroupSizes(groups=60, effective=9.6, largest="asthma", largest_share=0.3)
    (warning,) = warnings(of_rows(*rows, groups=sizes))
    assert warning == (
        "Warning: the rows fall into 60 groups, which count as 10 of equal size: the largest (group asthma) holds 30% "
        "of the rows. With so few, intervals are a little too narrow where a gain comes from a few topics alone: they "
        "cover 92 to 95 % in place of 95 %. Test on more topics."
    )
    assert warnings(of_rows(*rows, groups=replace(sizes, effective=30.0))) == []
    few = replace(sizes, groups=6, effective=6.0)
    (warning,) = warnings(of_rows(*rows, groups=few))
    assert warning == (
        "Warning: 6 independent groups of rows cannot carry a verdict on 3 primary metrics; test on at least 7 topics."
    )
    assert "Warning: the rows fall into 6 groups. With so few" in warnings(of_rows(rows[0], groups=few))[0]
    assert warnings(of_rows(*rows)) == []  # a comparison of an earlier version


@pytest.mark.parametrize(
    ("question", "shown"),
    [
        ("What is\x1b asthma ?\n", r'that of "What is\x1b asthma ?"'),
        (
            "What are the symptoms of asthma in children who live in a city ?",
            'that of "What are the symptoms of asthma in children who live in a …"',
        ),
    ],
)
def test_the_largest_group_is_named_by_its_first_question_cut_at_a_word(question: str, shown: str) -> None:
    sizes = GroupSizes(60, 9.6, "GHR-0000559-1", 0.3, question)
    (warning,) = warnings(of_rows(row("bleu", 5, 9), groups=sizes))
    assert f"the largest ({shown}) holds 30% of the rows." in warning
    assert "GHR" not in warning


def test_rows_without_groups_are_said_to_count_as_independent() -> None:
    alone, grouped = GroupSizes(400, 400.0, "", 1 / 400), GroupSizes(400, 400.0, "asthma", 1 / 400)
    sentences = [comparison_warnings(of_rows(row("bleu", 5, 9), groups=groups)) for groups in (alone, grouped)]
    assert sentences == [
        [
            "Note: no row has a group, so all rows count as independent of each other. If several are about one topic "
            "or document, say which in a field or column `group` of either file; intervals are too narrow without it."
        ],
        [],
    ]


def test_leaks() -> None:
    comparison = of_rows(row("bleu", 5, 9), leaking_rows={"question_exact": 5, "focus": 250})
    free = Stratum("leak", "does not leak", 250, 100, {})
    (warning,) = warnings(replace(comparison, strata=(free,)))
    assert warning == (
        "Warning: test rows share things with training rows (exact question 1.0% and focus 50.0% of the test "
        "rows), so that remembering passes for answering; strata.json has the scores without them."
    )
    (warning,) = warnings(comparison)
    assert warning.endswith("passes for answering; no test row is free of them.")
    assert warnings(of_rows(row("bleu", 5, 9))) == []
