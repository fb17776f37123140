"""Completions, driven by OpenAI's own client: what is answered, refused, cut off and given up."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from api_clients import ask, client, openai, slowly
from served import QUESTIONS, wait_until

# httpx leaves its pool to the garbage collector where a test leaves a client open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_a_chat_is_answered_as_ask_answers_it(start_server, expected):
    port, _ = start_server()
    with client(port) as api:
        for model in ("tuned", "base"):
            wanted = expected(model, QUESTIONS[1])
            made = ask(api, QUESTIONS[1], model)
            (choice,) = made.choices
            assert (choice.message.content, choice.finish_reason) == (wanted.text, wanted.finish_reason)
            assert choice.message.role == "assistant"
            assert made.usage.completion_tokens == wanted.new_tokens
            assert made.usage.total_tokens == made.usage.prompt_tokens + wanted.new_tokens
            assert (made.model, made.object) == (model, "chat.completion")
            streamed = list(ask(api, QUESTIONS[1], model, stream=True, stream_options={"include_usage": True}))
            text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed[:-1])
            assert text == wanted.text
            assert streamed[0].choices[0].delta.role == "assistant"
            assert streamed[-2].choices[0].finish_reason == wanted.finish_reason
            assert (streamed[-1].choices, streamed[-1].usage) == ([], made.usage)
            assert len({chunk.id for chunk in streamed}) == 1


def test_the_sdks_own_stream_helper_puts_it_together(start_server, expected):
    port, _ = start_server()
    asked = [(model, question) for model in ("tuned", "base") for question in QUESTIONS]
    model, question = next(one for one in asked if expected(*one).finish_reason == "stop")
    with (
        client(port) as api,
        api.chat.completions.stream(model=model, messages=[{"role": "user", "content": question}]) as stream,
    ):
        final = stream.get_final_completion()
    assert final.choices[0].message.content == expected(model, question).text


def test_completions_take_text_and_token_ids(start_server, chat, expected):
    port, _ = start_server()
    ids = chat.loaded.renderer.prompt_ids(QUESTIONS[2])
    wanted = expected("base", QUESTIONS[2])
    with client(port) as api:
        made = api.completions.create(model="base", prompt=ids)
        assert (made.choices[0].text.strip(), made.choices[0].finish_reason) == (wanted.text, wanted.finish_reason)
        assert made.usage.prompt_tokens == len(ids)
        parts = list(api.completions.create(model="base", prompt=ids, stream=True))
        assert "".join(part.choices[0].text for part in parts) == made.choices[0].text
        assert api.completions.create(model="tuned", prompt="What causes", max_tokens=2).usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"max_tokens": 10_000}, "max_tokens"),
        ({"extra_body": {"nosuch": 1}}, "nosuch"),
        ({"messages": [{"role": "user", "content": "gout " * 400}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "gout"}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
    ],
)
def test_a_refusal_names_the_field(start_server, fields, param):
    port, _ = start_server(prompt_tokens=300)
    with client(port) as api, pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(**{"model": "tuned", "messages": [{"role": "user", "content": "Gout ?"}], **fields})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_a_full_queue_is_told_with_the_time_to_come_again(start_server, monkeypatch):
    slowly(monkeypatch)
    port, server = start_server(rows=1, waiting=1)
    engine = server.service.engine
    with client(port) as api, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, api, QUESTIONS[0])
        wait_until(lambda: engine.load.running["tuned"])
        second = pool.submit(ask, api, QUESTIONS[1])
        wait_until(lambda: engine.load.waiting["tuned"])
        with pytest.raises(openai.RateLimitError) as caught:
            ask(api, QUESTIONS[2])
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert first.result().choices
        assert second.result().choices


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(start_server, monkeypatch, stream):
    slowly(monkeypatch, 0.1)
    port, server = start_server(rows=1)
    load = lambda: server.service.engine.load  # noqa: E731
    impatient = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="a", max_retries=0, timeout=0.5)
    with impatient as api:
        if stream:
            chunks = ask(api, QUESTIONS[0], stream=True)
            next(iter(chunks))
            chunks.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                ask(api, QUESTIONS[0])
    wait_until(lambda: load().running["tuned"] == 0)
    assert load().tokens["tuned"] < 24


def test_an_answer_that_takes_too_long_ends(start_server, monkeypatch):
    slowly(monkeypatch, 0.2)
    port, server = start_server(bounds={"answer_seconds": 0.5})
    with client(port) as api:
        with pytest.raises(openai.InternalServerError, match="took more than"):
            ask(api, QUESTIONS[0])
        with pytest.raises(openai.APIError, match="took more than"):
            list(ask(api, QUESTIONS[0], stream=True))
    wait_until(lambda: server.service.engine.load.running["tuned"] == 0)
