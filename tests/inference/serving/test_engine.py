"""The engine: answers of two models on one set of weights, many at once, each what it would be alone."""

import threading
import time

import pytest
import torch
from served import QUESTIONS, wait_until

from medtune.errors import DataError
from medtune.inference.serving import engine as engine_module
from medtune.inference.serving.answering import EngineError, Options, QueueFullError
from medtune.inference.serving.slots import GrowingSlots
from medtune.records import Answer, Turn


def prompt(engine, question="What causes gout ?"):
    return engine.chat_prompt([Turn("user", question)])


def test_answers_are_those_of_ask_whatever_batch_they_came_in(make_engine, expected):
    engine = make_engine(rows=5)
    under_way = [
        (model, question, engine.submit(prompt(engine, question), model=model))
        for question in QUESTIONS
        for model in ("tuned", "base")
    ]
    wrong = [(model, question) for model, question, one in under_way if one.result() != expected(model, question)]
    assert wrong == []
    assert sum(expected("tuned", question) != expected("base", question) for question in QUESTIONS) > 10
    reasons = {expected(model, question).finish_reason for model in ("tuned", "base") for question in QUESTIONS}
    assert reasons == {"stop", "length"}, "the test needs both kinds"


def test_pieces_come_while_the_answer_goes_on(make_engine, expected, monkeypatch):
    monkeypatch.setattr("medtune.inference.serving.lane.SECONDS_A_PIECE", 0)
    engine, news = make_engine(), []
    answering = engine.submit(prompt(engine, QUESTIONS[3]), on_news=lambda: news.append(1))
    pieces = list(answering)
    assert len(pieces) > 1
    assert len(news) > 1
    wanted = expected("tuned", QUESTIONS[3])
    assert "".join(piece.text for piece in pieces) == wanted.text
    assert (pieces[-1].new_tokens, pieces[-1].finish_reason) == (wanted.new_tokens, wanted.finish_reason)


def test_an_answer_has_its_own_cap_and_stop_texts(make_engine, expected):
    engine = make_engine()
    whole = expected("tuned", QUESTIONS[0])
    short = engine.submit(prompt(engine, QUESTIONS[0]), options=Options(max_new_tokens=3)).result()
    assert (short.new_tokens, short.finish_reason) == (3, "length")
    assert whole.text.startswith(short.text)
    stop = whole.text[4:6]
    stopped = engine.submit(prompt(engine, QUESTIONS[0]), options=Options(stop=(stop,))).result()
    assert (stopped.text, stopped.finish_reason) == (whole.text[: whole.text.index(stop)].strip(), "stop")
    assert stopped.new_tokens < whole.new_tokens


def test_draws_depend_on_the_seed_and_not_on_the_batch(make_engine):
    engine = make_engine(rows=6)

    def options(seed):
        return Options(temperature=1.0, seed=seed)

    alone = [engine.submit(prompt(engine), options=options(seed)).result() for seed in (1, 2)]
    beside = [engine.submit(prompt(engine), options=options(seed)) for seed in (1, 2)]
    greedy = [engine.submit(prompt(engine, question)) for question in QUESTIONS[:3]]
    assert [one.result() for one in beside] == alone
    assert alone[0] != alone[1]
    assert all(one.result().new_tokens for one in greedy)


def test_who_waits_is_let_in_as_rows_become_free_and_cancelling_frees_one(make_engine, monkeypatch):
    engine = make_engine(rows=1)
    gate = threading.Event()
    run = GrowingSlots.run
    monkeypatch.setattr(GrowingSlots, "run", lambda self, *rest: gate.wait(10) and run(self, *rest))
    first = engine.submit(prompt(engine))
    wait_until(lambda: engine.load.running["tuned"] == 1)
    second, third = engine.submit(prompt(engine)), engine.submit(prompt(engine))
    assert engine.load.waiting["tuned"] == 2
    first.cancel(), second.cancel()
    gate.set()
    assert third.result().new_tokens
    with pytest.raises(EngineError, match="cancelled"):
        second.result()
    wait_until(lambda: engine.load.running["tuned"] == engine.load.waiting["tuned"] == 0)


def test_neither_model_waits_for_all_of_the_others_requests(make_engine, monkeypatch):
    monkeypatch.setattr(engine_module, "LOOKS_A_TURN", 2)
    engine = make_engine(rows=1, waiting=100)
    many = [engine.submit(prompt(engine), model="base") for _ in range(30)]
    one = engine.submit(prompt(engine), model="tuned")
    one.result()
    assert any(other.take() is None or engine.load.waiting["base"] for other in many)


def test_too_many_that_wait_are_refused_with_a_time(make_engine, monkeypatch):
    engine = make_engine(rows=1, waiting=2)
    gate = threading.Event()
    run = GrowingSlots.run
    monkeypatch.setattr(GrowingSlots, "run", lambda self, *rest: gate.wait(10) and run(self, *rest))
    engine.submit(prompt(engine))
    wait_until(lambda: engine.load.running["tuned"] == 1)
    waiting = [engine.submit(prompt(engine), model=model) for model in ("base", "tuned")]
    with pytest.raises(QueueFullError, match="2 requests wait already") as caught:
        engine.submit(prompt(engine))
    assert caught.value.seconds >= 1
    gate.set()
    assert all(one.result().new_tokens for one in waiting)


@pytest.mark.parametrize(
    ("ids", "model", "options", "problem"),
    [
        ([], "tuned", {}, "prompt: is empty"),
        ([1] * 60, "tuned", {}, "has 60 tokens, and may have 50"),
        ([1, 10**6], "tuned", {}, "token ids must be from 0"),
        ([-1], "tuned", {}, "token ids must be from 0"),
        ([1], "other", {}, "other is not one of tuned, base"),
        ([1], "tuned", {"max_new_tokens": 25}, "max_tokens: must be from 1 to 24"),
    ],
)
def test_requests_past_the_limits_are_refused(make_engine, ids, model, options, problem):
    engine = make_engine(prompt_tokens=50)
    with pytest.raises(DataError, match=problem):
        engine.submit(ids, model=model, options=Options(**options))


@pytest.mark.parametrize(
    "roles", [[], ["system"], ["assistant"], ["user", "user"], ["user", "assistant"], ["user", "system", "user"]]
)
def test_conversations_in_another_order_are_refused(make_engine, roles):
    with pytest.raises(DataError, match="by turns"):
        make_engine().chat_prompt([Turn(role, "a") for role in roles])


def test_the_default_cap_is_what_the_model_can_read_after_the_prompt(make_engine, monkeypatch):
    engine = make_engine()
    ids = prompt(engine)
    monkeypatch.setattr(type(engine.chat.loaded), "positions", len(ids) + 3)
    assert engine.submit(ids).result().new_tokens <= 3
    with pytest.raises(DataError, match="past"):
        engine.submit(ids, options=Options(max_new_tokens=4))


def test_a_conversation_is_rendered_as_a_row_of_turns_is(make_engine, chat):
    engine = make_engine()
    assert prompt(engine) == chat.loaded.renderer.prompt_ids("What causes gout ?")
    turns = [Turn("system", "Be brief."), Turn("user", "Gout ?"), Turn("assistant", "Yes."), Turn("user", "Why ?")]
    text = chat.loaded.renderer.tokenizer.decode(engine.chat_prompt(turns))
    places = [text.index(turn.content) for turn in turns]
    assert places == sorted(places)
    assert "Be kind." not in text


@pytest.mark.parametrize("times", [1, 2])
def test_where_memory_runs_out_half_as_many_are_answered_at_once(make_engine, expected, monkeypatch, capsys, times):
    engine = make_engine(rows=8)
    run, failures = GrowingSlots.run, []

    def fail_sometimes(self, *rest):
        if len(self._tokens) > 3 and len(failures) < times:
            failures.append(1)
            raise torch.OutOfMemoryError
        return run(self, *rest)

    monkeypatch.setattr(GrowingSlots, "run", fail_sometimes)
    with engine._work:  # so that the first does not begin before the last has come
        under_way = [engine.submit(prompt(engine, question)) for question in QUESTIONS]
    assert [one.result() for one in under_way] == [expected("tuned", question) for question in QUESTIONS]
    assert len(failures) == times
    assert "continuing with" in capsys.readouterr().err


def test_a_request_for_which_memory_never_suffices_fails_alone(make_engine, expected, monkeypatch):
    engine = make_engine()
    join = GrowingSlots.join

    def fail_for_long(self, prompts, choose):
        if max(map(len, prompts)) > 60:
            raise torch.OutOfMemoryError
        return join(self, prompts, choose)

    monkeypatch.setattr(GrowingSlots, "join", fail_for_long)
    long = engine.submit(prompt(engine, "gout " * 80))
    with pytest.raises(EngineError, match="out of memory"):
        long.result()
    assert engine.submit(prompt(engine, QUESTIONS[0])).result() == expected("tuned", QUESTIONS[0])


def test_a_failure_is_told_to_those_it_concerns_and_the_engine_goes_on(make_engine, expected, monkeypatch, capsys):
    engine = make_engine()
    with monkeypatch.context() as patch:
        patch.setattr(GrowingSlots, "join", lambda *rest: 1 / 0)
        with pytest.raises(EngineError, match="internal error"):
            engine.submit(prompt(engine)).result()
    assert "division by zero" in capsys.readouterr().err
    assert engine.submit(prompt(engine, QUESTIONS[0])).result() == expected("tuned", QUESTIONS[0])


def test_closing_fails_what_is_under_way(make_engine, monkeypatch):
    engine = make_engine(rows=1)
    run = GrowingSlots.run
    monkeypatch.setattr(GrowingSlots, "run", lambda self, *rest: time.sleep(0.05) or run(self, *rest))
    under_way = [engine.submit(prompt(engine)) for _ in range(3)]
    engine.close()
    for one in under_way:
        with pytest.raises(EngineError, match="stopped"):
            one.result()
    with pytest.raises(EngineError, match="stopping"):
        engine.submit([1])


def test_an_answer_that_is_there_is_an_answer(make_engine):
    engine = make_engine()
    assert isinstance(engine.submit(engine.text_prompt("gout"), options=Options(strip=False)).result(), Answer)
