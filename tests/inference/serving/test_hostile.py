"""Requests that nobody sends in good faith: each is refused or cut off, and the server goes on serving."""

import json
import socket

import pytest
from raw_http import BODY, JSON, PATH, connect, exchange, is_serving, request, status_of
from served import wait_until

pytest.importorskip("uvicorn")


@pytest.mark.parametrize(
    "body",
    [b"{", b"\xff\xfe", b"[" * 19_000, b"null", b'{"model":"tuned"}', b'{"model":"tuned","messages":[[]]}', b""],
)
def test_bodies_that_are_no_requests_are_refused(port, body):
    response = exchange(port, request(body))
    assert status_of(response) == 400
    assert json.loads(response.split("\r\n\r\n", 1)[1])["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "head",
    [
        f"{PATH}{JSON}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"{PATH}{JSON}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        f"{PATH}{JSON}Content-Length: -5\r\n\r\n",
        f"{PATH}{JSON}Content-Length: 5_0\r\n\r\n",
        f"{PATH}{JSON}Transfer-Encoding: gzip\r\n\r\n",
        f"{PATH}{JSON}Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        f"{PATH}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        f"{PATH}Host: evil.example\r\n\r\n",
        f"{PATH}X: a\x00b\r\n\r\n",
        f"{PATH} folded: yes\r\n\r\n",
        "GET /v1/models\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_requests_that_two_servers_would_read_otherwise_are_refused(port, head):
    status = status_of(exchange(port, head))
    assert status is None or 400 <= status < 600
    assert status != 500


def test_what_follows_a_refused_request_is_not_taken_for_another(port):
    smuggled = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"{PATH}{JSON}Content-Length: {len(smuggled)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert exchange(port, head + smuggled).count("HTTP/1.1") == 1


def test_headers_without_end_are_refused(port):
    response = exchange(port, PATH, *[f"X-{number}: {'a' * 1000}\r\n" for number in range(100)])
    assert status_of(response) in (400, 431, None)


def test_a_reader_that_never_reads_holds_nobody_up(start_server):
    port, server = start_server(bounds={"answer_seconds": 2})
    streaming = BODY[:-1] + b', "stream": true}'
    deaf = [connect(port) for _ in range(8)]
    for connection in deaf:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(request(streaming))
    assert status_of(exchange(port, request())) == 200
    wait_until(lambda: server.service.active == 0)
    for connection in deaf:
        connection.close()
    assert is_serving(port)


def test_a_request_that_ends_in_its_middle_is_forgotten(port):
    for end in (20, len(PATH), len(PATH) + 10):
        with connect(port) as connection:
            connection.sendall(request()[:end])


def test_paths_and_methods_that_are_not_there(port):
    for head in ("GET /v1/chat/completions", "POST /v1/models", "GET /../../etc/passwd", "GET /%00", "OPTIONS *"):
        response = exchange(port, f"{head} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert status_of(response) in (400, 404, 405)
