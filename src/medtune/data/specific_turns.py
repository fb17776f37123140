"""What tells a conversation from others: user turns and answers that say something of their own.

"Thanks", "yes" and "And how is it treated?" are in many conversations that have nothing else in common. Rows that share
one of those are no leak, and would all be one group.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from medtune.data.cleaning import normalize_question, words
from medtune.data.turns import earlier_exchanges, user_turns
from medtune.records import QAPair

# Fewer words say nothing of their own: of a first turn ("Hello doctor"), and of any other turn ("Thank you very much").
OPENING_WORDS, TURN_WORDS = 3, 5
# A first turn before so many different second ones is a greeting; another turn after so many different first ones is a
# stock phrase. These are the bounds from which on an answer is a template: questions, and topics.
MOST_SECOND_TURNS, MOST_OPENINGS = 50, 7


@dataclass(frozen=True, slots=True)
class AskedTurns:
    """What a row asks, as it is written and by its words; rows that share one of these ask the same."""

    exact: frozenset[str]
    normalized: frozenset[str]


def asked_turns(pairs: Sequence[QAPair]) -> list[AskedTurns]:
    """The question of each row, and in place of it of a conversation: its specific user turns, and all as one."""
    second: dict[str, set[str]] = defaultdict(set)
    openings: dict[str, set[str]] = defaultdict(set)
    asked = [user_turns(pair) for pair in pairs]
    normalized = [[normalize_question(turn) for turn in turns] for turns in asked]
    for turns in normalized:
        if len(turns) > 1:
            second[turns[0]].add(turns[1])
        for turn in turns[1:]:
            openings[turn].add(turns[0])

    def is_specific(place: int, turn: str) -> bool:
        count = len(words(turn))
        if place == 0:
            return count >= OPENING_WORDS and len(second[turn]) < MOST_SECOND_TURNS
        return count >= TURN_WORDS and len(openings[turn]) < MOST_OPENINGS

    found = []
    for turns, plain in zip(asked, normalized, strict=True):
        kept = [place for place, turn in enumerate(plain) if len(plain) == 1 or is_specific(place, turn)]
        exact, by_words = ({texts[place] for place in kept} for texts in (turns, plain))
        found.append(AskedTurns(frozenset({*exact, "\n".join(turns)}), frozenset({*by_words, "\n".join(plain)})))
    return found


def specific_earlier_answers(pair: QAPair) -> list[str]:
    """The answers before the last that say something of their own."""
    return [answer for _, answer in earlier_exchanges(pair) if len(words(answer)) >= TURN_WORDS]
