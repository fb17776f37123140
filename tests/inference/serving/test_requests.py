"""Requests read and refused, each refusal naming its field."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.inference.serving.answering import Options
from medtune.inference.serving.requests import RequestError, read_chat, read_completion
from medtune.records import Turn

MESSAGES = [{"role": "user", "content": "Gout ?"}]


def read(**fields):
    return read_chat(json.dumps({"model": "tuned", "messages": MESSAGES, **fields}).encode())


def test_what_clients_send_by_themselves_is_read():
    asked = read(
        temperature=0.5, top_p=0.9, seed=3, stop="\n", max_completion_tokens=7, stream=True, n=1, tools=[],
        tool_choice="none", logprobs=False, frequency_penalty=0.0, presence_penalty=0, user="me",
        response_format={"type": "text"}, stream_options={"include_usage": True}, logit_bias=None,
    )  # fmt: skip
    assert asked.options == Options(7, 0.5, 0.9, 3, ("\n",))
    assert (asked.model, asked.stream, asked.include_usage) == ("tuned", True, True)
    assert asked.turns == (Turn("user", "Gout ?"),)
    assert read().options == Options()


def test_messages_may_have_parts_of_text_and_a_developer():
    parts = [{"type": "text", "text": "Gout ?"}, {"type": "text", "text": "Why ?"}]
    asked = read(messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}])
    assert asked.turns == (Turn("system", "Be brief."), Turn("user", "Gout ?\nWhy ?"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 2}, "n"), ({"n": True}, "n"), ({"tools": [{}]}, "tools"), ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions"), ({"logprobs": True}, "logprobs"), ({"top_logprobs": 3}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"), ({"audio": {}}, "audio"),
        ({"frequency_penalty": 1}, "frequency_penalty"), ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"nosuch": 1}, "nosuch"), ({"temperature": 2.1}, "temperature"), ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"), ({"temperature": float("nan")}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"top_p": float("inf")}, "top_p"), ({"seed": 1.5}, "seed"), ({"seed": 2**70}, "seed"), ({"stop": 5}, "stop"),
        ({"stop": ["a"] * 5}, "stop"), ({"stop": [""]}, "stop"), ({"stop": ["a" * 300]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": "9"}, "max_tokens"), ({"stream": 1}, "stream"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"), ({"model": 3}, "model"), ({"model": None}, "model"),
        ({"stream_options": {"include_usage": True}}, "stream_options"), ({"messages": []}, "messages"),
        ({"messages": MESSAGES * 257}, "messages"),
        ({"messages": "Gout ?"}, "messages"), ({"messages": ["Gout ?"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": [], "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "messages[0].tool_calls"),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_its_field(fields, field):
    with pytest.raises(RequestError) as caught:
        read(**fields)
    error = caught.value
    assert (error.status, error.field) == (400, field)
    assert error.body["error"].keys() == {"message", "type", "param", "code"}
    assert error.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b"[]", b"3", b'{"a":' * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"]
)
def test_a_body_that_is_no_json_object_is_refused(content):
    with pytest.raises(RequestError) as caught:
        read_chat(content)
    assert caught.value.status == 400


@pytest.mark.parametrize("prompt", ["Gout ?", [5, 6, 7], ["Gout ?"], [[5, 6, 7]]])
def test_a_completion_takes_text_or_token_ids(prompt):
    asked = read_completion(json.dumps({"model": "base", "prompt": prompt}).encode())
    assert asked.prompt in ("Gout ?", (5, 6, 7))
    assert not asked.options.strip


@pytest.mark.parametrize("prompt", [None, [], [[]], ["a", "b"], [[1], [2]], [1, "a"], [True], 5, {"a": 1}, [1.5]])
def test_other_prompts_are_refused(prompt):
    with pytest.raises(RequestError) as caught:
        read_completion(json.dumps({"model": "base", "prompt": prompt}).encode())
    assert caught.value.field == "prompt"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["model", "messages", "stop", "stream", "stream_options", "n", "tools", "temperature", "seed"])


@given(st.dictionaries(NAMES, VALUES))
def test_any_json_is_read_or_refused(fields):
    content = json.dumps({"model": "tuned", "messages": MESSAGES, **fields}).encode()
    with suppress(RequestError):
        read_chat(content)
