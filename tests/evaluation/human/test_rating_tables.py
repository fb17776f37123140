from __future__ import annotations

import io

import pytest
from rich.console import Console

from medtune.evaluation.human.human_scores import score_judgements
from medtune.evaluation.human.rating_tables import print_scores, read_scores
from medtune.evaluation.human.ratings import Judgement
from medtune.evaluation.human.rubric import RATING_COLUMNS

FULL = dict.fromkeys(RATING_COLUMNS, 4)


@pytest.fixture
def scores(make_key):
    """Ten items; both raters always prefer the tuned model, one of them on half the items."""
    key = make_key("abbabaabab", identical=[3])
    judgements = [Judgement("anna", item, FULL, entry.tuned) for item, entry in key.items.items()]
    judgements += [Judgement("ben [x]", item, {}, entry.tuned) for item, entry in list(key.items.items())[:5]]
    return score_judgements(judgements, key)


def test_the_reading(scores) -> None:
    verdict, criteria, agreement, position, identical, count, intervals, advice = read_scores(scores)
    assert verdict.startswith(
        "Raters prefer the tuned model's answers (win rate 1.00, 95 % interval 1.00 to 1.00, p = 0.00"
    )
    assert verdict.endswith("10 items, 15 judgements).")
    assert "without ties it is 1.00. 7 of 15 preferences went to the answer on side A." in position
    assert identical == "On 1 item both models wrote the same text."
    assert count == "2 raters on a sheet of 10 items: 15 of 20 judgements given, 10 of them in full."
    assert agreement.startswith("Agreement on the preference: Krippendorff's alpha 1.00 over 5 items")
    assert criteria == (
        "But the preferred answers are not rated higher for accuracy and freedom from harm. Mean ratings of 5, "
        "baseline → tuned: accuracy 4.00 → 4.00, completeness 4.00 → 4.00, freedom from harm 4.00 → 4.00, clarity "
        "4.00 → 4.00."
    )
    assert "not that of raters" in intervals
    assert advice.endswith("not medical advice.")


def verdict_of(make_key, outcomes: str) -> str:
    key = make_key(("ab" * 20)[: len(outcomes)])
    other = {"a": "b", "b": "a"}
    judgements = [
        Judgement("anna", item, {}, {"w": entry.tuned, "l": other[entry.tuned], "t": "tie"}[outcome])
        for (item, entry), outcome in zip(key.items.items(), outcomes, strict=True)
    ]
    return read_scores(score_judgements(judgements, key))[0]


def test_verdicts(make_key) -> None:
    assert verdict_of(make_key, "l" * 10).startswith("Raters prefer the baseline's answers (win rate 0.00")
    undecided = verdict_of(make_key, "wl" * 5)
    assert undecided.startswith("Raters' preferences do not tell the two models apart at this n (win rate 0.50")
    assert undecided.endswith("10 judgements).")
    assert verdict_of(make_key, "www").endswith(
        "3 judgements). Fewer than 6 independent questions cannot tell two models apart at 5 %."
    )


@pytest.mark.parametrize(
    ("preferred", "lower", "held_back"), [("tuned", 0, False), ("tuned", 1, True), ("other", 0, True)]
)
def test_a_preference_for_answers_that_are_not_rated_higher_is_told(make_key, preferred, lower, held_back) -> None:
    """By accuracy or freedom from harm; `lower` of two ratings of accuracy favour the side that is not preferred."""
    key, other = make_key("ab" * 5), {"a": "b", "b": "a"}
    judgements = []
    for item, entry in key.items.items():
        side = entry.tuned if preferred == "tuned" else other[entry.tuned]
        ratings = {column: 5 if column.endswith(f"_{entry.tuned}") else 2 for column in RATING_COLUMNS}
        if lower:
            ratings |= {f"accuracy_{entry.tuned}": 2, f"accuracy_{other[entry.tuned]}": 3}
        judgements.append(Judgement("anna", item, ratings, side))
    criteria = read_scores(score_judgements(judgements, key))[1]
    assert criteria.startswith("But the preferred answers are not rated higher for accuracy") == held_back


def test_raters_who_disagree_are_told(make_key) -> None:
    key, other = make_key("ab" * 5), {"a": "b", "b": "a"}
    judgements = [Judgement("anna", item, {}, entry.tuned) for item, entry in key.items.items()]
    judgements += [Judgement("ben", item, {}, other[entry.tuned]) for item, entry in key.items.items()]
    agreement = read_scores(score_judgements(judgements, key))[1]
    assert agreement.startswith("Raters disagree on the preference: Krippendorff's alpha -")


def test_without_preferences(make_key) -> None:
    found = read_scores(score_judgements([Judgement("anna", "1", FULL)], make_key("a")))
    assert found[0] == "Nobody filled in a preference: there is no win rate."
    assert "Agreement on the preference has no alpha: needs two raters of the same items." in found


def test_all_ties(make_key) -> None:
    assert "Every preference was a tie." in read_scores(
        score_judgements([Judgement("anna", "1", preference="tie")], make_key("a"))
    )


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(scores, width: int) -> None:
    out = io.StringIO()
    print_scores(scores, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in out.getvalue()
    cells = [line.split() for line in lines]
    assert ["anna", "10", "10", "0", "1.00"] in cells
    assert ["ben", "[x]", "5", "0", "5", "1.00"] in cells
    assert next(row[:7] for row in cells if row[:3] == ["15", "0", "0"])[3:] == ["1.00", "1.00", "to", "1.00"]
    assert ["freedom", "from", "harm", "4.00", "4.00", "+0.00", "+0.00", "to", "+0.00", "10", "-"] in cells
