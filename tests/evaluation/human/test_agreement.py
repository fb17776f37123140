from __future__ import annotations

from itertools import pairwise, product

import pytest

from medtune.evaluation.human.agreement import RaterAgreement, measure_agreement
from medtune.evaluation.human.ratings import Judgement
from medtune.evaluation.human.rubric import PREFERENCES

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): four observers, twelve units, values 1 to 5.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)
NEEDS_TWO = "needs two raters of the same items"


def judgements(observers, column: str = "accuracy_a") -> list[Judgement]:
    return [
        Judgement(f"rater {i}", str(unit), {column: value})
        for i, values in enumerate(observers)
        for unit, value in enumerate(values, start=1)
        if value is not None
    ]


def test_the_published_example() -> None:
    found = measure_agreement(judgements(OBSERVERS))["accuracy"]
    assert found.alpha == pytest.approx(0.815, abs=5e-4)  # ordinal
    assert found == RaterAgreement(found.alpha, 11, "ordinal")  # the twelfth unit has one value


def test_each_side_is_a_unit_of_its_own() -> None:
    split = [row[:6] for row in OBSERVERS], [row[6:] for row in OBSERVERS]
    both = judgements(split[0]) + judgements(split[1], "accuracy_b")
    whole = measure_agreement(judgements(OBSERVERS))["accuracy"]
    assert measure_agreement(both)["accuracy"].alpha == pytest.approx(whole.alpha)


def test_preferences_are_nominal() -> None:
    # Hayes and Krippendorff's formula by hand: two raters, ten items.
    first = "aaabbbtttt"
    second = "aabbbattta"
    spelled = {"a": "a", "b": "b", "t": "tie"}
    found = measure_agreement([
        Judgement(rater, str(i), preference=spelled[letter])  # type: ignore[arg-type]
        for rater, letters in (("x", first), ("y", second))
        for i, letter in enumerate(letters)
    ])["preference"]  # fmt: skip
    values = first + second
    observed = sum(left != right for left, right in zip(first, second, strict=True)) / 10
    different = sum(values[i] != values[j] for i, j in product(range(20), repeat=2) if i != j)
    assert found.alpha == pytest.approx(1 - observed / (different / (20 * 19)))
    assert (found.units, found.level) == (10, "nominal")
    assert len(PREFERENCES) == 3


def test_full_agreement_and_systematic_disagreement() -> None:
    assert measure_agreement(judgements([(1, 5, 3), (1, 5, 3)]))["accuracy"].alpha == 1
    against = measure_agreement(judgements([(1, 5, 1, 5), (5, 1, 5, 1)]))["accuracy"].alpha
    assert against is not None
    assert against < 0


def test_an_order_of_values_matters() -> None:
    alphas = [
        measure_agreement(judgements([(1, 2, 3, 4, 5), (other, 2, 3, 4, 5)]))["accuracy"].alpha
        for other in (2, 3, 4, 5)
    ]
    assert all(near > far for near, far in pairwise(alphas))


@pytest.mark.parametrize(
    ("observers", "units", "reason"),
    [
        ([(1, 2, 3)], 0, NEEDS_TWO),
        ([(1, 2, None), (None, None, 3)], 0, NEEDS_TWO),
        ([(4, 4, 1), (4, 4, None)], 2, "every rating is the same, so chance agreement is not defined"),
    ],
)
def test_where_alpha_is_not_defined(observers, units: int, reason: str) -> None:
    assert measure_agreement(judgements(observers))["accuracy"] == RaterAgreement(None, units, "ordinal", reason)


def test_what_nobody_rated() -> None:
    found = measure_agreement(judgements(OBSERVERS))
    assert found["clarity"] == RaterAgreement(None, 0, "ordinal", NEEDS_TWO)
    assert found["preference"] == RaterAgreement(None, 0, "nominal", NEEDS_TWO)
