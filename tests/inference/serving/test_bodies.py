"""Bodies within their bounds, and what is sent back."""

import asyncio
import json
import time

import pytest
from raw_http import JSON, PATH, exchange, request, status_of

from medtune.inference.chat import NO_ADVICE
from medtune.inference.serving.bodies import read_body, send_error
from medtune.inference.serving.requests import RequestError


def test_bodies_past_the_bound_are_refused_unread(port):
    begun = time.monotonic()
    response = exchange(port, f"{PATH}{JSON}Content-Length: {10**12}\r\n\r\n")
    assert status_of(response) == 413
    assert "connection: close" in response
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    assert status_of(exchange(port, f"{PATH}{JSON}Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 3)) == 413
    assert time.monotonic() - begun < 5


def test_a_page_of_another_origin_cannot_send_json_unasked(port):
    assert status_of(exchange(port, request(headers="Content-Type: text/plain\r\n"))) == 415
    assert status_of(exchange(port, request(headers=""))) == 415


def read(*messages, headers=((b"content-type", b"application/json"),), max_bytes=10, seconds=5):
    """What `read_body` makes of these messages; no other comes behind them."""
    coming = list(messages)

    async def receive():
        if not coming:
            await asyncio.Event().wait()
        return coming.pop(0)

    return asyncio.run(read_body({"headers": list(headers)}, receive, max_bytes=max_bytes, seconds=seconds))


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def test_pieces_are_one_body_of_just_so_many_bytes():
    assert read(part(b"12345", more=True), part(b"", more=True), part(b"67890")) == b"1234567890"
    assert read({"type": "http.request"}) == b""
    with pytest.raises(RequestError) as caught:
        read(part(b"12345", more=True), part(b"678901", more=True))
    assert caught.value.status == 413


@pytest.mark.parametrize("kind", [b"application/json", b"Application/JSON ; charset=utf-8"])
def test_json_is_known_whatever_its_case_and_parameters(kind):
    assert read(part(b"{}"), headers=[(b"content-type", kind)]) == b"{}"


@pytest.mark.parametrize("headers", [[(b"content-type", b"application/json-patch+json")], [(b"content-type", b"")], []])
def test_another_type_is_refused_unread(headers):
    with pytest.raises(RequestError) as caught:
        read(headers=headers)
    assert caught.value.status == 415


def test_a_body_that_is_announced_too_large_is_not_waited_for():
    headers = [(b"content-type", b"application/json"), (b"content-length", b"11")]
    with pytest.raises(RequestError, match="at most 10 bytes"):
        read(headers=headers)


def test_a_body_that_stays_out_and_a_client_that_goes_away():
    with pytest.raises(RequestError, match=r"did not come within 0.01 s") as caught:
        read(part(b"1", more=True), seconds=0.01)
    assert caught.value.status == 408
    with pytest.raises(ConnectionError):
        read(part(b"1", more=True), {"type": "http.disconnect"})


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (401, None, {b"www-authenticate": b"Bearer", b"connection": b"close"}),
        (429, 7, {b"retry-after": b"7"}),
        (503, 5, {b"retry-after": b"5", b"connection": b"close"}),
        (413, None, {b"connection": b"close"}),  # unread: what follows is no request
        (404, None, {}),
    ],
)
def test_a_refusal_says_when_to_come_again_and_ends_what_was_not_read(status, retry_after, expected):
    sent = []

    async def send(message):
        sent.append(message)

    error = RequestError(status, "no", "field", retry_after=retry_after)
    asyncio.run(send_error(send, error))
    start, body = sent
    headers = dict(start["headers"])
    assert start["status"] == status
    assert json.loads(body["body"]) == error.body
    assert headers.pop(b"content-length") == str(len(body["body"])).encode()
    assert headers.pop(b"x-medtune-notice") == NO_ADVICE.encode()
    assert headers.pop(b"content-type") == b"application/json"
    assert headers == expected
