"""Requests that another page has a browser send, and the policy on every response."""

import asyncio

import pytest

from medtune.inference.serving.chat.local_only import POLICY, LocalOnly


def ask(headers, *, is_local=True, kind="http"):
    """Status and headers of the answer to a request with these headers."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(LocalOnly(app, is_local=is_local)(scope, None, send))
    return sent[0]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.1"])
def test_this_machine_may_ask_and_gets_the_policy(host):
    sent = ask({"host": host, "origin": f"http://{host}"})
    assert sent["status"] == 200
    assert (b"content-security-policy", POLICY.encode()) in sent["headers"]
    assert "connect-src 'self'" in POLICY


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:7860"},  # a name that resolves to 127.0.0.1
        {"host": "127.0.0.1.evil.example"},
        {},
        {"host": "127.0.0.1:7860", "origin": "http://evil.example"},
        {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9999"},
        {"host": "127.0.0.1:7860", "origin": "null"},
    ],
)
def test_others_are_refused(headers):
    assert ask(headers)["status"] == 403


def test_where_others_may_ask_the_host_may_have_any_name_and_the_origin_still_has_to_be_the_page():
    assert ask({"host": "clinic:7860", "origin": "http://clinic:7860"}, is_local=False)["status"] == 200
    assert ask({"host": "clinic:7860", "origin": "http://evil.example"}, is_local=False)["status"] == 403


def test_websockets_are_closed():
    assert ask({"host": "127.0.0.1"}, kind="websocket")["type"] == "websocket.close"
