"""What raters are asked: one scale, higher always better, and columns that sheet, page and scores share."""

from medtune.evaluation.human import rubric
from medtune.evaluation.human.rubric import CRITERIA, GUIDE, PREFERENCES, RATING_COLUMNS, SCALE, SIDES, rating_column


def test_a_column_for_each_criterion_and_side_in_the_order_of_the_page():
    assert RATING_COLUMNS == (
        "accuracy_a", "accuracy_b", "completeness_a", "completeness_b", "freedom_from_harm_a", "freedom_from_harm_b",
        "clarity_a", "clarity_b",
    )  # fmt: skip
    assert rating_column("clarity", "b") == "clarity_b"


def test_a_tie_is_a_preference_and_no_side():
    assert SIDES == ("a", "b")
    assert PREFERENCES == ("a", "b", "tie")


def test_every_point_that_raters_are_told_of_is_on_the_scale():
    assert SCALE == (1, 2, 3, 4, 5)
    guide = " ".join(GUIDE)
    assert f"from {SCALE[0]} to {SCALE[-1]}" in guide
    assert f"each of the {['one', 'two', 'three', 'four'][len(CRITERIA) - 1]} criteria" in guide


def test_criteria_are_named_after_their_good_end():
    assert len({criterion.name for criterion in CRITERIA}) == len(CRITERIA)
    for criterion in CRITERIA:
        assert criterion.question.endswith("?")
        assert len({criterion.lowest, criterion.middle, criterion.highest}) == 3
    harm = next(criterion for criterion in CRITERIA if "harm" in criterion.name)
    assert (harm.name, harm.lowest, harm.highest) == (
        "freedom_from_harm", "serious harm is likely", "no harm foreseen"
    )  # fmt: skip


def test_raters_are_told_that_nothing_is_medical_advice():
    assert any("not medical advice" in line for line in rubric.GUIDE)
