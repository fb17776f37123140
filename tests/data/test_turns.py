from __future__ import annotations

from dataclasses import replace

from medtune.data.turns import (
    all_exchanges,
    asked_text,
    earlier_exchanges,
    single_answers,
    system_turn,
    user_turns,
    with_turns,
    without_oldest,
)
from medtune.records import QAPair, Turn

SYSTEM = Turn("system", "Be brief.")
TURNS = (
    SYSTEM,
    Turn("user", "1?"),
    Turn("assistant", "1."),
    Turn("user", "2?"),
    Turn("assistant", "2.", learned=False),
)
PAIR = QAPair("p", "", "3?", "3.", turns=TURNS)
PLAIN = replace(PAIR, turns=())


def test_what_a_conversation_consists_of() -> None:
    assert (system_turn(PAIR), system_turn(PLAIN), system_turn(replace(PAIR, turns=TURNS[1:]))) == ("Be brief.", "", "")
    assert earlier_exchanges(PAIR) == [("1?", "1."), ("2?", "2.")]
    assert all_exchanges(PAIR) == [("1?", "1."), ("2?", "2."), ("3?", "3.")]
    assert (earlier_exchanges(PLAIN), all_exchanges(PLAIN)) == ([], [("3?", "3.")])
    assert (user_turns(PAIR), asked_text(PLAIN)) == (["1?", "2?", "3?"], "3?")


def test_the_oldest_exchanges_go_first_and_the_system_turn_stays() -> None:
    assert without_oldest(PAIR, 1).turns == (SYSTEM, *TURNS[3:])
    assert without_oldest(PAIR, 2).turns == (SYSTEM,)
    assert without_oldest(PLAIN, 1) == PLAIN


def test_a_row_for_each_learned_answer() -> None:
    first, last = single_answers(PAIR)
    assert (first.question, first.answer, first.turns, last) == ("1?", "1.", (SYSTEM,), PAIR)
    assert single_answers(PLAIN) == [PLAIN]


def test_other_texts_in_the_same_turns() -> None:
    changed = with_turns(PAIR, "abcde").turns
    assert [(turn.role, turn.content, turn.learned) for turn in changed[3:]] == [
        ("user", "d", True),
        ("assistant", "e", False),
    ]
