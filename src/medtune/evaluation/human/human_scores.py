"""Scores of unblinded ratings: win rate, criteria, agreement."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medtune.evaluation.human.agreement import RaterAgreement, measure_agreement
from medtune.evaluation.human.blinding import Key
from medtune.evaluation.human.ratings import Judgement
from medtune.evaluation.human.rubric import CRITERIA, Side, rating_column
from medtune.evaluation.significance import Interval, Subsamples

_SPLITS = 10_000
_SEED = 0

PreferenceVerdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, slots=True)
class WinRate:
    """Preferences for the tuned model; a judgement is one rater's preference on one item.

    `rate` counts a tie as half a win, `rate_without_ties` leaves ties out (None where there is nothing else). The
    interval is `rate`'s, at 95 %. `preferred_a` counts the judgements for the answer on side A.
    """

    wins: int
    losses: int
    ties: int
    rate: float
    rate_without_ties: float | None
    low: float
    high: float
    p_value: float
    verdict: PreferenceVerdict
    items: int
    groups: int
    preferred_a: int
    identical: int

    @property
    def n(self) -> int:
        """Judgements in all."""
        return self.wins + self.losses + self.ties


@dataclass(frozen=True, slots=True)
class CriterionScore:
    """Mean ratings, 1 to 5, over the `n` judgements that rate both answers; the interval is the difference's."""

    baseline: float
    tuned: float
    difference: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class RaterCount:
    """How many items a rater touched, how many of them in full, and the rate at which the tuned model won.

    `win_rate` counts a tie as half a win; None without a preference.
    """

    items: int
    complete: int
    win_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Comment:
    """A rater's words on an item. A and B in them are the sheet's sides; `tuned` says which was the tuned model's."""

    rater: str
    item: str
    row: str
    tuned: Side
    text: str


@dataclass(frozen=True, slots=True)
class HumanScores:
    """Everything that `medtune human score` says about one sheet. Criteria and win rate are absent where unrated.

    `is_chat` says that raters chose the questions, in a chat; `own_questions` counts the rated items that are no test
    questions.
    """

    sheet: str
    sheet_items: int
    raters: dict[str, RaterCount]
    win_rate: WinRate | None
    criteria: dict[str, CriterionScore]
    agreement: dict[str, RaterAgreement]
    comments: list[Comment]
    is_chat: bool = False
    own_questions: int = 0


def score_judgements(judgements: Sequence[Judgement], key: Key) -> HumanScores:
    """Unblind `judgements` with `key` and summarise them. The items of the judgements must be the key's.

    Intervals split the groups of rows at random, with all of their judgements: they cover other questions of this kind
    rated by the same people, and not other raters.
    """
    touched = Counter(judgement.rater for judgement in judgements)
    complete = Counter(judgement.rater for judgement in judgements if judgement.is_complete)
    criteria = {criterion.name: _criterion_score(criterion.name, judgements, key) for criterion in CRITERIA}
    return HumanScores(
        sheet=key.sheet,
        sheet_items=len(key.items),
        raters={
            name: RaterCount(items, complete[name], _rate(_outcomes(judgements, key, name)))
            for name, items in touched.items()
        },
        win_rate=_win_rate([judgement for judgement in judgements if judgement.preference], key),
        criteria={name: score for name, score in criteria.items() if score},
        agreement=measure_agreement(judgements),
        comments=[
            Comment(judgement.rater, judgement.item, entry.row, entry.tuned, judgement.comment)
            for judgement in judgements
            if judgement.comment and (entry := key.items[judgement.item])
        ],
        is_chat=key.chat is not None,
        own_questions=len({judgement.item for judgement in judgements if not key.items[judgement.item].row}),
    )


def _win_rate(judgements: Sequence[Judgement], key: Key) -> WinRate | None:
    if not judgements:
        return None
    outcomes = _outcomes(judgements, key)
    wins, losses, ties = (outcomes.count(value) for value in (1, -1, 0))
    groups = _groups(judgements, key)
    low, high = mean_interval([(outcome + 1) / 2 for outcome in outcomes], groups, (0.0, 1.0))
    p_value = sign_flip_p_value(outcomes, groups)
    return WinRate(
        wins=wins,
        losses=losses,
        ties=ties,
        rate=_rate(outcomes) or 0.0,
        rate_without_ties=wins / (wins + losses) if wins + losses else None,
        low=low,
        high=high,
        p_value=p_value,
        verdict=_verdict(low, high),
        items=len({judgement.item for judgement in judgements}),
        groups=len(set(groups)),
        preferred_a=sum(judgement.preference == "a" for judgement in judgements),
        identical=len({judgement.item for judgement in judgements if key.items[judgement.item].identical}),
    )


def _outcomes(judgements: Sequence[Judgement], key: Key, rater: str | None = None) -> list[int]:
    """1 for each preference of `rater`, or of all, that the tuned model won, -1 for one that it lost, 0 for a tie."""
    return [
        0 if judgement.preference == "tie" else 1 if judgement.preference == key.items[judgement.item].tuned else -1
        for judgement in judgements
        if judgement.preference and rater in (None, judgement.rater)
    ]


def _rate(outcomes: Sequence[int]) -> float | None:
    """The mean with a tie as half a win; None of nothing."""
    return sum(outcome + 1 for outcome in outcomes) / (2 * len(outcomes)) if outcomes else None


def _verdict(low: float, high: float) -> PreferenceVerdict:
    """The interval leaves out one half exactly where the sign-flip test rejects at 5 %."""
    if low <= 0.5 <= high:
        return "cannot tell"
    return "better" if low > 0.5 else "worse"


def _criterion_score(criterion: str, judgements: Sequence[Judgement], key: Key) -> CriterionScore | None:
    pairs, groups = [], []
    for judgement, group in zip(judgements, _groups(judgements, key), strict=True):
        tuned: Side = key.items[judgement.item].tuned
        other: Side = "b" if tuned == "a" else "a"
        before = judgement.ratings.get(rating_column(criterion, other))
        after = judgement.ratings.get(rating_column(criterion, tuned))
        if before is not None and after is not None:
            pairs.append((before, after))
            groups.append(group)
    if not pairs:
        return None
    n = len(pairs)
    baseline, tuned_mean = (sum(side) / n for side in zip(*pairs, strict=True))
    differences = [after - before for before, after in pairs]
    low, high = mean_interval(differences, groups, (-4.0, 4.0))  # ratings go from 1 to 5
    return CriterionScore(baseline, tuned_mean, sum(differences) / n, low, high, n)


def _groups(judgements: Sequence[Judgement], key: Key) -> list[str]:
    """The group of each judgement's row; a row without one is a group by itself."""
    entries = [(judgement.item, key.items[judgement.item]) for judgement in judgements]
    return [f"group {entry.group}" if entry.group else f"item {item}" for item, entry in entries]


def mean_interval(values: Sequence[float], groups: Sequence[str], scale: Interval) -> Interval:
    """Return the 95 % interval of the mean of `values`; the whole `scale` where there are fewer than six groups.

    The mean of a part is its sum over its own count: groups differ in size.
    """
    subsamples = Subsamples.draw(groups, splits=_SPLITS, seed=_SEED)
    return subsamples.interval(_means(values, subsamples)) or scale


def sign_flip_p_value(outcomes: Sequence[int], groups: Sequence[str]) -> float:
    """Return the two-sided p-value of a mean of zero when each group's sum is as likely to be positive as negative.

    That is what random sides make true of two models that raters cannot tell apart (Fisher's randomisation test). A
    single group can show nothing: 1.
    """
    subsamples = Subsamples.draw(groups, splits=_SPLITS, seed=_SEED)
    if subsamples.group_count < 2:
        return 1.0
    return subsamples.p_value(_means(outcomes, subsamples), float(np.mean(outcomes)))


def _means(values: Sequence[float], subsamples: Subsamples) -> NDArray[np.float64]:
    sums, counts = subsamples.sums(np.column_stack([values, np.ones(len(values))])).T
    return np.asarray(sums / counts)
