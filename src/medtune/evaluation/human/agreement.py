"""How far raters agree: Krippendorff's alpha."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from medtune.evaluation.human.ratings import Judgement
from medtune.evaluation.human.rubric import CRITERIA, PREFERENCES, SCALE, SIDES, rating_column


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
        columns = {side: rating_column(criterion.name, side) for side in SIDES}
        ratings = [
            (f"{judgement.item} {side}", judgement.ratings[column])
            for judgement in judgements
            for side, column in columns.items()
            if column in judgement.ratings
        ]
        found[criterion.name] = _alpha(ratings, SCALE, "ordinal")
    given = [(one.item, PREFERENCES.index(one.preference)) for one in judgements if one.preference is not None]
    found["preference"] = _alpha(given, range(len(PREFERENCES)), "nominal")
    return found


def _alpha(
    values: Iterable[tuple[str, int]], domain: Sequence[int], level: Literal["ordinal", "nominal"]
) -> RaterAgreement:
    """`values` are a unit and what one of its raters gave it."""
    import krippendorff

    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for unit, value in values:
        counts[unit][value] += 1
    pairable = [[counts[unit][value] for value in domain] for unit in sorted(counts) if counts[unit].total() > 1]
    if not pairable:
        return RaterAgreement(None, 0, level, "needs two raters of the same items")
    if sum(map(any, zip(*pairable, strict=True))) < 2:
        return RaterAgreement(
            None, len(pairable), level, "every rating is the same, so chance agreement is not defined"
        )
    alpha = float(krippendorff.alpha(value_counts=pairable, value_domain=list(domain), level_of_measurement=level))
    return RaterAgreement(alpha, len(pairable), level)
