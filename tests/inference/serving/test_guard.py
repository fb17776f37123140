"""Who may ask: with a key, and without one."""

import asyncio
import hmac
import urllib.error
import urllib.request

import pytest
from api_clients import client, get, openai

from medtune.inference.serving import guard

# httpx leaves its pool to the garbage collector where a test leaves a client open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


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


def passed(*headers, key=None, is_local=True, path="/v1/models"):
    """The status that a request with these headers gets; 200 is that of the application behind the guard."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.run(guard.Guard(app, key, is_local=is_local)(scope, None, send))
    return sent[0]["status"]


HOST = ("host", "localhost:8000")


@pytest.mark.parametrize(
    "more",
    [
        [("content-length", "5"), ("transfer-encoding", "chunked")],
        [("host", "localhost:8000")],
        [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    ],
)
def test_what_two_readers_would_read_otherwise_is_refused(more):
    assert passed(HOST, *more[:1] if more[0] != HOST else []) == 200
    assert passed(HOST, *more) == 400


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("Bearer word", 200),
        ("bearer  word ", 200),
        ("Basic word", 401),
        ("word", 401),
        ("Bearer", 401),
        ("Bearer words", 401),
        ("Bearer Word", 401),
    ],
)
def test_the_key_is_a_bearers(given, status):
    assert passed(("host", "clinic"), ("authorization", given), key="word") == status


def test_with_a_key_any_name_will_do_and_health_needs_none():
    assert passed(("host", "evil.example"), key="word") == 401
    assert passed(("host", "evil.example"), key="word", path="/health") == 200
    assert passed(("host", "evil.example"), key="word", path="/health/") == 401


def test_without_a_key_the_name_is_this_machines_unless_others_may_ask():
    assert [passed(("host", host)) for host in ("localhost", "127.0.0.1:80", "evil.example")] == [200, 200, 403]
    assert passed() == 403
    assert passed(("host", "evil.example"), path="/health") == 403
    assert passed(("host", "clinic"), is_local=False) == 200
