"""How far raters agree: Krippendorff's alpha."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medtune.evaluation.human.ratings import Judgement
from medtune.evaluation.human.rubric import CRITERIA, PREFERENCES, SCALE, SIDES, rating_column

# rater → unit → value
_Values = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """Alpha of one criterion or of the preference; 1 is full agreement, 0 what chance gives.

    `units` counts the answers (or items) that two or more raters rated. `alpha` is None where it is not defined, and
    `reason` says why.
    """

    alpha: float | None
    units: int
    level: Literal["ordinal", "nominal"]
    reason: str = ""


def measure_agreement(judgements: Sequence[Judgement]) -> dict[str, RaterAgreement]:
    """Return the agreement on each criterion (ordinal; every answer is a unit) and on the preference (nominal).

    The preference is taken as it was given, A, B or tie: raters did not know which model was on which side.
    """
    found = {}
    for criterion in CRITERIA:
        values: _Values = {}
        for judgement in judgements:
            for side in SIDES:
                rating = judgement.ratings.get(rating_column(criterion.name, side))
                if rating is not None:
                    values.setdefault(judgement.rater, {})[f"{judgement.item} {side}"] = rating
        found[criterion.name] = _alpha(values, SCALE, "ordinal")
    preferences: _Values = {}
    for judgement in judgements:
        if judgement.preference is not None:
            preferences.setdefault(judgement.rater, {})[judgement.item] = PREFERENCES.index(judgement.preference)
    found["preference"] = _alpha(preferences, range(len(PREFERENCES)), "nominal")
    return found


def _alpha(values: _Values, domain: Sequence[int], level: Literal["ordinal", "nominal"]) -> RaterAgreement:
    import krippendorff

    units = sorted({unit for of_rater in values.values() for unit in of_rater})
    counts = [[sum(of_rater.get(unit) == value for of_rater in values.values()) for value in domain] for unit in units]
    pairable = [row for row in counts if sum(row) > 1]
    if not pairable:
        return RaterAgreement(None, 0, level, "needs two raters of the same items")
    if sum(map(any, zip(*pairable, strict=True))) < 2:
        return RaterAgreement(
            None, len(pairable), level, "every rating is the same, so chance agreement is not defined"
        )
    alpha = float(krippendorff.alpha(value_counts=pairable, value_domain=list(domain), level_of_measurement=level))
    return RaterAgreement(alpha, len(pairable), level)
