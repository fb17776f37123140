"""Conversations share by any turn that says something of its own; grouping and leaks follow."""

from __future__ import annotations

from medtune.data.leakage import Leakage
from medtune.data.near_duplicates import find_similar_answers
from medtune.data.specific_turns import asked_turns, specific_earlier_answers
from medtune.data.splits import assign_groups
from medtune.records import QAPair, Turn

THANKS, WELCOME = "Thank you!", "You are welcome."
GOUT = ("What are the symptoms of gout ?", "A joint that hurts, and that is red and hot.")
FLU = ("How long does the flu last ?", "A week or two in most people, with a cough that stays.")


def chat(id: str, *turns: str) -> QAPair:
    roles = ("user", "assistant")
    before = tuple(Turn(roles[place % 2], text) for place, text in enumerate(turns[:-2]))
    return QAPair(id, "", turns[-2], turns[-1], turns=before)


def groups(*pairs: QAPair) -> list[set[str]]:
    rows = assign_groups(pairs)
    return [{row.id for row in rows if row.group == name} for name in dict.fromkeys(row.group for row in rows)]


def leaks(kind: str, test: QAPair, train: QAPair) -> bool:
    rows = [test, train]
    earlier = [specific_earlier_answers(pair) for pair in rows]
    similar = find_similar_answers([pair.answer for pair in rows], earlier=earlier)
    return bool(Leakage(rows, similar).find(kind, [test], [train]))


def test_a_row_without_turns_asks_its_question() -> None:
    (asked,) = asked_turns([QAPair("q", "", "What?", "a")])
    assert (asked.exact, asked.normalized) == ({"What?"}, {"what"})


def test_a_question_that_is_an_earlier_turn_joins_and_leaks() -> None:
    plain = QAPair("plain", "", GOUT[0].upper(), "Another answer with words of its own.")
    train = chat("train", *GOUT, THANKS, WELCOME)
    assert groups(plain, train) == [{"plain", "train"}]
    assert leaks("question_normalized", plain, train)
    assert not leaks("question_exact", plain, train)
    assert leaks("question_exact", QAPair("plain", "", GOUT[0], "a"), train)


def test_an_earlier_answer_joins_and_leaks() -> None:
    first, second = chat("first", *GOUT, THANKS, WELCOME), chat("second", *FLU, "What of a red joint ?", GOUT[1])
    assert groups(first, second) == [{"first", "second"}]
    for kind in ("answer_exact", "answer_near_duplicate"):
        assert leaks(kind, first, second)
        assert leaks(kind, second, first)


def test_thanks_join_nothing() -> None:
    first, second = (
        chat("first", *GOUT, THANKS, WELCOME),
        chat("second", *FLU, THANKS, "Any time, and be well again soon."),
    )
    assert groups(first, second) == [{"first"}, {"second"}]
    assert not any(leaks(kind, first, second) for kind in ("question_exact", "question_normalized", "answer_exact"))


def test_a_stock_phrase_after_seven_openings_joins_nothing() -> None:
    topics = ["gout", "asthma", "anemia", "migraine", "eczema", "cholera", "measles"]
    rows = [
        chat(topic, f"What are the symptoms of {topic} ?", f"Those of {topic} are well known to doctors.",
             "And how is it treated today ?", f"A doctor treats {topic} with a plan for {topic} alone.")
        for topic in topics
    ]  # fmt: skip
    assert len(groups(*rows)) == 7
    assert len(groups(*rows[:6])) == 1


def test_a_greeting_joins_nothing() -> None:
    greeting = ("Hello doctor.", "Hello, how can I help you today, please?")
    rows = [
        chat(str(n), *greeting, f"What is condition {n} with its own name ?", f"Condition {n} is one of {n}.")
        for n in range(8)
    ]
    assert len(groups(*rows)) == 8


def test_conversations_of_the_same_short_turns_are_the_same() -> None:
    assert len(groups(chat("1", "Hi", "Hello.", "Gout?", "Yes."), chat("2", "hi!", "Good day.", "Gout", "No."))) == 1
    assert len(groups(chat("1", "Hi", "Hello.", "Gout?", "Yes."), chat("2", "hi!", "Good day.", "Flu", "No."))) == 2
