"""What one page holds: its conversation, its test question, and the pair of answers that it rates."""

import asyncio

import pytest

from medtune.evaluation.human.blinding import ChatOrigin
from medtune.inference.serving.answering import EngineError, Options
from medtune.inference.serving.chat.blind_sheet import BlindSheet
from medtune.inference.serving.chat.page_session import PageSession
from medtune.inference.serving.chat.run_questions import RunQuestions
from medtune.records import QAPair, Turn

GOUT = QAPair("t1", "causes", "What causes gout ?", "Uric acid does.", group="gout")
AFTER = QAPair("t2", "", "And then ?", "It goes.", turns=(Turn("user", "Hello"), Turn("assistant", "Hello you.")))


@pytest.fixture
def session(echo, tmp_path):
    return PageSession(echo, RunQuestions((GOUT, AFTER)), BlindSheet(tmp_path, ChatOrigin("demo", echo.cap)))


def ask(session, question):
    """The exchange at its end, and what was shown of the tuned answer before."""

    async def all_of_it():
        shown = []
        async for exchange in session.ask(question, Options()):
            assert session.is_busy
            shown.append(exchange.replies["tuned"].text)
        return exchange, shown

    return asyncio.run(all_of_it())


def test_both_models_answer_and_the_page_is_free_again(session):
    exchange, shown = ask(session, "a b")
    assert {name: reply.text for name, reply in exchange.replies.items()} == {"tuned": "tuned a b", "base": "base a b"}
    assert shown[-1] == "tuned a b"
    assert not session.is_busy


def test_whoever_reads_no_further_stops_the_answers(session, echo):
    async def leave():
        asked = session.ask("a wait b", Options())
        exchange = await anext(asked)
        await asked.aclose()
        return exchange

    exchange = asyncio.run(leave())
    assert not session.is_busy
    echo.go.set()
    assert all(reply.answering.is_cancelled for reply in exchange.replies.values())


def test_what_is_asked_is_the_question_that_was_picked_until_it_is_changed(session):
    assert session.row_of(" what causes  GOUT ?") == GOUT
    assert session.row_of("And then ?").id == "", "its turns were not said"
    session.begin(AFTER)
    assert session.row_of("and then ?") == AFTER
    assert session.row_of("Something else ?") == QAPair("", "", "Something else ?", "")


def test_a_picked_question_follows_its_turns(session, echo):
    session.begin(AFTER)
    ask(session, "And then ?")
    assert ("tuned", "<user> Hello <assistant> Hello you. <user> And then ?") in echo.prompts
    session.begin()
    ask(session, "And then ?")
    assert echo.prompts[-1][1] == "<user> And then ?"


def test_a_pair_is_the_items_of_the_sheet_and_its_notes_are_on_the_right_side(session):
    exchange, _ = ask(session, "1 2 3 4 5 6 7 8 9")
    pair = session.blind(exchange, "Anna")
    assert {pair.item.answer_a, pair.item.answer_b} == {exchange.replies[name].text for name in ("tuned", "base")}
    assert all("cap of 8 tokens" in note for note in pair.notes)
    assert not pair.is_identical
    assert (session.pair, session.rater) == (pair, "Anna")
    session.begin()
    assert session.pair is None


@pytest.mark.parametrize("cut", ["tuned", "base"])
def test_the_note_is_of_the_answer_that_was_cut(session, cut):
    exchange, _ = ask(session, "a b")
    exchange.replies[cut].state = "length"
    pair = session.blind(exchange, "Anna")
    notes = dict(zip((pair.item.answer_a, pair.item.answer_b), pair.notes, strict=True))
    assert [text for text, note in notes.items() if note] == [f"{cut} a b"]


@pytest.mark.parametrize("question", ["a break", "x break"])
def test_an_answer_that_is_not_complete_is_not_rated(session, question):
    exchange, _ = ask(session, question)
    with pytest.raises(EngineError, match="internal error"):
        session.blind(exchange, "Anna")
    assert session.pair is None
