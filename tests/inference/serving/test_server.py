"""The server under many clients of OpenAI's, and how it stops."""

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from api_clients import ask, client, get, openai, slowly
from served import QUESTIONS, wait_until

# httpx leaves its pool to the garbage collector where a test leaves a client open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_many_clients_of_both_models_each_get_their_own_answer(start_server, expected):
    port, _ = start_server(rows=7)
    jobs = [(model, question) for question in QUESTIONS for model in ("tuned", "base")] * 2
    for job in jobs:
        expected(*job)

    with client(port) as api:

        def check(number):
            model, question = jobs[number]
            wanted = expected(model, question)
            if number % 2:
                return ask(api, question, model).choices[0].message.content == wanted.text
            chunks = ask(api, question, model, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == wanted.text

        with ThreadPoolExecutor(16) as pool:
            right = list(pool.map(check, range(len(jobs))))
    assert right == [True] * len(jobs)
    assert sum(expected("tuned", one) != expected("base", one) for one in QUESTIONS) > 8


def test_answers_under_way_end_and_no_other_begins_once_it_is_stopping(start_server, expected, monkeypatch):
    slowly(monkeypatch)
    port, server = start_server(rows=4)
    wanted = expected("tuned", QUESTIONS[0])
    with client(port) as api, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, api, QUESTIONS[0])
        wait_until(lambda: server.service.engine.load.running["tuned"])
        server.stop()
        with pytest.raises(openai.InternalServerError) as caught:
            ask(api, QUESTIONS[1])
        assert caught.value.status_code == 503
        assert caught.value.response.headers["retry-after"]
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(port, "/health")
        assert first.result().choices[0].message.content == wanted.text
    wait_until(lambda: server.should_exit)


def test_answers_that_outlast_the_grace_are_told(start_server, monkeypatch):
    slowly(monkeypatch, 0.4)
    port, server = start_server(grace=0.5)
    with client(port) as api:
        chunks = iter(ask(api, QUESTIONS[0], stream=True))
        next(chunks)
        server.stop()
        with pytest.raises(openai.APIError, match="stopped"):
            list(chunks)
