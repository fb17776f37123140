"""Several turns with each model, and how answers end."""

import threading

import pytest

from medtune.errors import DataError
from medtune.inference.serving.answering import Options
from medtune.inference.serving.chat.conversation import Conversation
from medtune.records import Turn


def finish(exchange, news):
    while not exchange.is_done:
        news.wait(5)
        news.clear()
        exchange.advance()
    return exchange


@pytest.fixture
def ask(echo):
    conversation, news = Conversation(echo), threading.Event()

    def asked(question, *models, **options):
        return finish(conversation.ask(question, models, Options(**options), news.set), news)

    asked.conversation = conversation
    return asked


def test_each_model_sees_its_own_answers_and_no_other(ask, echo):
    ask("one", "base", "tuned")
    ask("two", "tuned")
    ask("three", "base", "tuned")
    assert dict(echo.prompts[-2:]) == {
        "base": "<user> one <assistant> base one <user> three",
        "tuned": "<user> one <assistant> tuned one <user> two <assistant> tuned two <user> three",
    }


def test_an_answer_says_how_it_ended(ask):
    assert [reply.state for reply in ask("a b", "base", "tuned").replies.values()] == ["stop", "stop"]
    reply = ask("a b c d", "tuned", max_new_tokens=3).replies["tuned"]
    assert (reply.state, reply.text, reply.new_tokens) == ("length", "tuned a b", 3)
    reply = ask("a break", "tuned").replies["tuned"]
    assert (reply.state, reply.problem) == ("failed", "internal error")


def test_a_stopped_answer_keeps_what_was_written_and_is_history(echo):
    conversation, news = Conversation(echo), threading.Event()
    exchange = conversation.ask("a wait b", ["tuned"], None, news.set)
    while exchange.replies["tuned"].text != "tuned a":
        news.wait(5)
        news.clear()
        exchange.advance()
    assert not exchange.is_done
    exchange.stop()
    assert exchange.advance()
    assert exchange.replies["tuned"].state == "stopped"
    assert not exchange.advance()
    assert conversation.messages("tuned") == [Turn("user", "a wait b"), Turn("assistant", "tuned a")]


def test_the_oldest_turns_make_way_and_the_system_turn_stays(echo):
    echo.limits = type(echo.limits)(prompt_tokens=16)
    conversation, news = Conversation(echo, [Turn("system", "Be kind.")]), threading.Event()
    for question in ("one one", "two two", "three three"):
        exchange = finish(conversation.ask(question, ["tuned"], None, news.set), news)
    assert echo.prompts[-1][1] == "<system> Be kind. <user> two two <assistant> tuned two two <user> three three"
    assert exchange.replies["tuned"].forgotten == 1


def test_a_cap_past_what_the_model_can_read_is_lowered_and_said(ask, echo):
    echo.chat.loaded.positions = 12
    exchange = ask("1 2 3 4 5 6", "base", "tuned", max_new_tokens=40)
    assert (exchange.cap, exchange.replies["tuned"].state) == (5, "length")


def test_an_empty_question_is_refused(echo):
    conversation = Conversation(echo)
    with pytest.raises(DataError, match="is empty"):
        conversation.ask("  ", ["tuned"])
    assert conversation.exchanges == []
