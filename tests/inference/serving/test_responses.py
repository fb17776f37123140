"""Answers in the shapes that OpenAI's clients read."""

import json
import threading
import urllib.error
import urllib.request

import pytest

from medtune.inference.serving.answering import Piece
from medtune.inference.serving.responses import ResponseShape, as_json


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


def shape(is_chat):
    return ResponseShape(is_chat, "tuned", id="1", created=2)


def choices_of(events):
    """The only choice of each event."""
    read = [json.loads(one.removeprefix(b"data: ")) for one in events]
    assert all(one.endswith(b"\n\n") for one in events)
    assert {one["model"] for one in read} <= {"tuned"}
    return [choice for one in read for choice in one["choices"]]


def test_a_whole_answer():
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    last = Piece("", 3, "length")
    message = {"role": "assistant", "content": "été", "refusal": None}
    chat, text = shape(True).whole("été", last, 5), shape(False).whole("été", last, 5)
    assert chat == {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 2, "model": "tuned", "usage": usage,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}],
    }  # fmt: skip
    assert text == {
        "id": "cmpl-1", "object": "text_completion", "created": 2, "model": "tuned", "usage": usage,
        "choices": [{"index": 0, "text": "été", "logprobs": None, "finish_reason": "length"}],
    }  # fmt: skip
    assert "été".encode() in as_json(chat)


@pytest.mark.parametrize(("is_chat", "texts"), [(True, ["", "a", None]), (False, ["a", ""])])
def test_a_stream_opens_a_chat_and_ends_with_the_reason_by_itself(is_chat, texts):
    made = shape(is_chat)
    pieces = [Piece("a", 1), Piece("", 2), Piece("", 2, "stop")]
    found = choices_of([*made.start(), *(event for piece in pieces for event in made.more(piece))])
    assert [one["delta"].get("content") if is_chat else one["text"] for one in found] == texts
    assert [one["finish_reason"] for one in found] == [None] * (len(texts) - 1) + ["stop"]
    # Text that comes with the reason has its event before it.
    assert [one["finish_reason"] for one in choices_of(list(made.more(Piece("b", 3, "length"))))] == [None, "length"]


def test_tokens_are_counted_in_an_event_without_a_choice():
    event = json.loads(shape(True).usage(5, 3).removeprefix(b"data: "))
    assert (event["choices"], event["usage"]["total_tokens"]) == ([], 8)
    assert event["object"] == "chat.completion.chunk"


def test_each_response_has_an_id_of_its_own():
    assert ResponseShape(True, "tuned").id != ResponseShape(True, "tuned").id
