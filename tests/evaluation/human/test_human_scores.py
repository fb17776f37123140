from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from scipy.stats import bootstrap

from medtune.evaluation.human.human_scores import (
    Comment,
    RaterCount,
    mean_interval,
    score_judgements,
    sign_flip_p_value,
)
from medtune.evaluation.human.ratings import Judgement
from medtune.evaluation.human.rubric import CRITERIA, SIDES

OTHER = {"a": "b", "b": "a"}


def prefer(key, outcomes: str, rater: str = "anna") -> list[Judgement]:
    """`outcomes` spells each item's: w the tuned model wins, l it loses, t a tie."""
    found = []
    for (item, entry), outcome in zip(key.items.items(), outcomes, strict=True):
        preference = {"w": entry.tuned, "l": OTHER[entry.tuned], "t": "tie"}[outcome]
        found.append(Judgement(rater, item, preference=preference))
    return found


def test_planted_preferences_for_the_tuned_model(make_key) -> None:
    key = make_key("abbabaabab")
    rate = score_judgements(prefer(key, "w" * 10), key).win_rate
    assert (rate.wins, rate.losses, rate.ties, rate.n) == (10, 0, 0, 10)
    assert (rate.rate, rate.rate_without_ties, rate.low, rate.high) == (1, 1, 1, 1)
    assert rate.verdict == "better"
    assert rate.preferred_a == 5


def test_planted_preferences_for_the_baseline(make_key) -> None:
    key = make_key("abbabaabab")
    rate = score_judgements(prefer(key, "l" * 10), key).win_rate
    assert (rate.rate, rate.verdict) == (0, "worse")


def test_a_rater_who_always_takes_the_left_answer_favours_nobody(make_key) -> None:
    key = make_key("ab" * 20)
    rate = score_judgements([Judgement("anna", item, preference="a") for item in key.items], key).win_rate
    assert (rate.rate, rate.verdict, rate.preferred_a) == (0.5, "cannot tell", 40)


def test_ties_count_half_or_not_at_all(make_key) -> None:
    key = make_key("abababab")
    rate = score_judgements(prefer(key, "wwwlttttt"[:8]), key).win_rate
    assert (rate.wins, rate.losses, rate.ties) == (3, 1, 4)
    assert (rate.rate, rate.rate_without_ties) == (5 / 8, 3 / 4)
    only_ties = score_judgements(prefer(key, "t" * 8), key).win_rate
    assert (only_ties.rate, only_ties.rate_without_ties, only_ties.p_value) == (0.5, None, 1)
    assert only_ties.verdict == "cannot tell"


@pytest.mark.parametrize(("n", "verdict"), [(1, "cannot tell"), (5, "cannot tell"), (7, "better")])
def test_a_few_wins_in_a_row_prove_nothing(make_key, n: int, verdict: str) -> None:
    key = make_key("abababab"[:n])
    rate = score_judgements(prefer(key, "w" * n), key).win_rate
    assert (rate.verdict, rate.groups) == (verdict, n)


def test_rows_of_one_group_are_one_draw(make_key) -> None:
    wins = "w" * 12
    alone, together = make_key("ab" * 6), make_key("ab" * 6, groups=["x"] * 6 + ["y"] * 6)
    assert score_judgements(prefer(alone, wins), alone).win_rate.verdict == "better"
    rate = score_judgements(prefer(together, wins), together).win_rate
    assert (rate.verdict, rate.groups, rate.items) == ("cannot tell", 2, 12)


def test_two_raters_of_one_item_are_not_two_items(make_key) -> None:
    key = make_key("aba")
    both = prefer(key, "www") + prefer(key, "www", rater="ben") + prefer(key, "www", rater="cleo")
    rate = score_judgements(both, key).win_rate
    assert (rate.n, rate.items, rate.groups, rate.verdict) == (9, 3, 3, "cannot tell")


def test_the_win_rates_interval_is_near_the_bootstraps(make_key) -> None:
    outcomes = "w" * 30 + "l" * 12 + "t" * 8
    key = make_key("ab" * 25)
    rate = score_judgements(prefer(key, outcomes), key).win_rate
    values = np.array([{"w": 1, "l": 0, "t": 0.5}[letter] for letter in outcomes])
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=5).confidence_interval
    assert (rate.low, rate.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)
    assert (rate.verdict, rate.rate) == ("better", 0.68)


def test_the_test_rejects_seldom_where_there_is_nothing(make_key) -> None:
    generator = random.Random(0)
    key = make_key("ab" * 15)
    verdicts = [
        score_judgements(prefer(key, "".join(generator.choices("wlt", k=30))), key).win_rate.verdict for _ in range(200)
    ]
    # 5 % of 200 is 10; 20 would be more than three standard deviations above.
    assert sum(verdict != "cannot tell" for verdict in verdicts) < 20


def rate_all(key, baseline: int, tuned: int, rater: str = "anna") -> list[Judgement]:
    return [
        Judgement(rater, item, {
            f"{criterion.name}_{side}": tuned if side == entry.tuned else baseline
            for criterion in CRITERIA for side in SIDES
        })
        for item, entry in key.items.items()
    ]  # fmt: skip


def test_criteria_are_unblinded(make_key) -> None:
    key = make_key("abbaba")
    scores = score_judgements(rate_all(key, baseline=2, tuned=5), key)
    assert list(scores.criteria) == ["accuracy", "completeness", "freedom_from_harm", "clarity"]
    for score in scores.criteria.values():
        assert (score.baseline, score.tuned, score.difference, score.low, score.high, score.n) == (2, 5, 3, 3, 3, 6)
    assert scores.win_rate is None


def test_a_criterion_needs_both_answers(make_key) -> None:
    key = make_key("aab")
    found = score_judgements([
        Judgement("anna", "1", {"clarity_a": 4, "clarity_b": 1}),
        Judgement("anna", "2", {"clarity_a": 5}),
        Judgement("anna", "3", {"clarity_a": 1, "clarity_b": 2, "accuracy_b": 3}),
    ], key).criteria  # fmt: skip
    assert list(found) == ["clarity"]
    clarity = found["clarity"]
    assert (clarity.tuned, clarity.baseline, clarity.difference, clarity.n) == (3, 1, 2, 2)
    assert (clarity.low, clarity.high) == (-4, 4)  # two groups: nothing on the scale is excluded


def test_raters_are_counted(make_key) -> None:
    key = make_key("ab", identical=[2])
    full = [Judgement("ben", judgement.item, judgement.ratings, "tie") for judgement in rate_all(key, 3, 3)]
    scores = score_judgements([Judgement("anna", "1", preference="b"), *full], key)
    assert scores.raters == {"anna": RaterCount(1, 0, 0.0), "ben": RaterCount(2, 2, 0.5)}
    assert (scores.sheet, scores.sheet_items) == ("bcdfghjk", 2)
    assert scores.win_rate.identical == 1


def test_comments_come_with_the_side_they_speak_of(make_key) -> None:
    key = make_key("ab")
    scores = score_judgements([Judgement("anna", "2", comment="A is short")], key)
    assert scores.comments == [Comment("anna", "2", "row-2", "b", "A is short")]


def test_the_interval_of_unequal_groups() -> None:
    """Six groups of 1 to 3 values: of the 32 ways to split them, one may lie beyond each end."""
    groups = ["x", "y", "y", "z", "z", "z", "u", "v", "v", "w"]
    values = [1, 0, 1, 0, 0, 1, 1, 0, 0, 1]
    means = []
    for chosen in product([True, False], repeat=6):
        part = [v for v, g in zip(values, groups, strict=True) if dict(zip("xyzuvw", chosen, strict=True))[g]]
        if 0 < len(part) < len(values):
            means.append(sum(part) / len(part))
    assert mean_interval(values, groups, (0, 1)) == pytest.approx((min(means), max(means)))


def test_the_sign_flip_test_by_enumeration() -> None:
    outcomes, groups = [1, 1, -1, 1, 1, 1, 0, 1], list("aabcdefg")
    sums = [2, -1, 1, 1, 1, 0, 1]
    draws = [abs(sum(s * sign for s, sign in zip(sums, signs, strict=True))) for signs in product((1, -1), repeat=7)]
    exact = sum(draw >= abs(sum(sums)) for draw in draws) / len(draws)
    assert sign_flip_p_value(outcomes, groups) == pytest.approx(exact)


def test_one_value_everywhere_has_no_spread() -> None:
    assert mean_interval([0.5] * 7, list("uvwxyzz"), (0, 1)) == (0.5, 0.5)


def test_the_test_is_two_sided_and_never_gives_zero() -> None:
    groups = [str(number) for number in range(30)]
    wins, losses = sign_flip_p_value([1] * 30, groups), sign_flip_p_value([-1] * 30, groups)
    assert wins == losses == 1 / 10_001
    assert sign_flip_p_value([1, -1], ["x", "y"]) == 1
    assert sign_flip_p_value([0] * 5, groups[:5]) == 1


def test_rows_of_one_group_keep_one_sign() -> None:
    apart = sign_flip_p_value([1] * 6, [str(number) for number in range(6)])
    assert apart == pytest.approx(2 / 2**6)
    assert sign_flip_p_value([1] * 6, ["x"] * 3 + ["y"] * 3) == pytest.approx(2 / 2**2)


def test_few_groups_leave_the_whole_scale() -> None:
    assert mean_interval([1] * 5, list("abcde"), (0, 1)) == (0, 1)
    assert mean_interval([2] * 5, ["a"] * 5, (-4, 4)) == (-4, 4)
