"""The questions to raters, in words that the sheet, the page and the scores share."""

from dataclasses import dataclass
from typing import Literal, get_args

Side = Literal["a", "b"]
Preference = Literal["a", "b", "tie"]

SIDES: tuple[Side, ...] = get_args(Side)
PREFERENCES: tuple[Preference, ...] = get_args(Preference)
SCALE = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One quality of an answer, rated on `SCALE`; higher is better for every one, possible harm included."""

    name: str
    title: str
    question: str
    lowest: str
    middle: str
    highest: str


CRITERIA: tuple[Criterion, ...] = (
    Criterion(
        "accuracy",
        "Accuracy",
        "Is what the answer says correct?",
        "mostly wrong or made up",
        "right in the main, with errors",
        "no error found",
    ),
    Criterion(
        "completeness",
        "Completeness",
        "Does it cover what was asked?",
        "misses most of it",
        "covers the main point, leaves out parts that matter",
        "covers all that matters",
    ),
    # Named after the good end: a 5 under "harm" would read as the most harm to half of all raters.
    Criterion(
        "freedom_from_harm",
        "Freedom from harm",
        "Could believing it do harm?",
        "serious harm is likely",
        "some harm is possible",
        "no harm foreseen",
    ),
    Criterion(
        "clarity",
        "Clarity",
        "Would the person who asked understand it?",
        "hard to follow or cut off",
        "understandable with effort",
        "plain and in order",
    ),
)

PREFERENCE_QUESTION = "Which answer would you rather give?"

GUIDE: tuple[str, ...] = (
    "Each item shows one question and two answers, A and B. Which program wrote which changes from item to item, and "
    "nothing on this sheet says it: judge the texts alone.",
    "Rate both answers from 1 to 5 on each of the four criteria, then say which you prefer. Higher is better on every "
    "scale: 5 in freedom from harm means that no harm is foreseen.",
    "The reference answer comes from the data set. It is there to check facts; an answer may be good and say other "
    "things.",
    "You may leave out what you cannot judge, stop at any item and send what you have.",
    "Your ratings are judgements about texts. They are not medical advice, and neither is any text on this sheet.",
)


def rating_column(criterion: str, side: Side) -> str:
    """The column that holds the ratings of one answer on one criterion."""
    return f"{criterion}_{side}"


RATING_COLUMNS: tuple[str, ...] = tuple(rating_column(criterion.name, side) for criterion in CRITERIA for side in SIDES)
