"""The server, driven by OpenAI's own client."""

import hmac
import json
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import QUESTIONS, wait_until

from medtune.inference.chat import NO_ADVICE
from medtune.inference.serving import guard
from medtune.inference.serving.slots import GrowingSlots

openai = pytest.importorskip("openai")

# httpx leaves its pool to the garbage collector where a test leaves a client open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def client(port, key="any", **more):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=60, **more)


def ask(api, question, model="tuned", **more):
    return api.chat.completions.create(model=model, messages=[{"role": "user", "content": question}], **more)


def slowly(monkeypatch, seconds=0.05):
    """A model that takes its time for each step."""
    run = GrowingSlots.run
    monkeypatch.setattr(GrowingSlots, "run", lambda self, *rest: time.sleep(seconds) or run(self, *rest))


def get(port, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.status, response.headers, response.read().decode()


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


def test_models_say_what_they_are(start_server):
    port, _ = start_server()
    with client(port) as api:
        assert [model.id for model in api.models.list()] == ["tuned", "base"]
        assert api.models.retrieve("base").notice == NO_ADVICE
        with pytest.raises(openai.NotFoundError):
            api.models.retrieve("gpt")
        with pytest.raises(openai.NotFoundError) as caught:
            ask(api, "Gout ?", "gpt")
    assert caught.value.code == "model_not_found"
    assert get(port, "/health")[1]["x-medtune-notice"] in (None, NO_ADVICE)


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


def test_the_key_is_asked_for_and_compared_as_a_whole(start_server, monkeypatch):
    port, _ = start_server(key="sésame")
    compared = []
    digest = hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda *pair: compared.append(pair) or digest(*pair))
    for wrong in ("sesam", "x", "sesame2"):
        with client(port, wrong) as api, pytest.raises(openai.AuthenticationError):
            api.models.list()
    assert len(compared) == 3, "no wrong key may be told by anything else"
    for path, headers in (("/v1/models", {}), ("/metrics", {}), ("/nosuch", {"Authorization": "Basic x"})):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(port, path, **headers)
    right = {"Authorization": "Bearer sésame".encode().decode("latin-1")}
    assert get(port, "/v1/models", **right)[0] == 200
    assert get(port, "/health")[0] == 200


def test_without_a_key_another_name_of_this_machine_is_refused(start_server):
    port, _ = start_server()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(port, "/v1/models", Host="evil.example")
    assert get(port, "/v1/models", Host=f"localhost:{port}")[0] == 200


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


def test_prometheus_reads_what_happened(start_server):
    parser = pytest.importorskip("prometheus_client.parser")
    port, _ = start_server()
    with client(port) as api:
        new = ask(api, QUESTIONS[0], "base").usage.completion_tokens
        with pytest.raises(openai.BadRequestError):
            ask(api, QUESTIONS[0], n=3)
    _, headers, text = get(port, "/metrics")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["medtune_requests_total", "200", "chat"] == 1
    assert samples["medtune_requests_total", "400", "chat"] == 1
    assert samples["medtune_new_tokens_total", "base"] == new
    assert samples["medtune_requests_running", "tuned"] == 0
    assert samples["medtune_request_seconds_count",] == 1


def test_a_stream_is_what_the_standard_says(start_server):
    port, _ = start_server()
    body = {"model": "tuned", "messages": [{"role": "user", "content": "Gout ?"}], "stream": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert threading.active_count() < 50
