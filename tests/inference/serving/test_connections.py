"""Connections that send no request in time, and more of them than there may be."""

import time

from raw_http import JSON, PATH, connect, exchange, is_serving, request, status_of


def test_senders_that_are_too_slow_are_cut_off(port):
    begun = time.monotonic()
    assert exchange(port, *PATH, pause=0.05) == ""
    assert exchange(port, PATH, *JSON, pause=0.05) == ""
    # So is one whose first request was in time.
    first = f"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n{PATH}"
    assert exchange(port, first, *JSON, pause=0.05).count("HTTP/1.1") == 1
    response = exchange(port, f"{PATH}{JSON}Content-Length: 100\r\n\r\n", *"{" * 40, pause=0.05)
    assert status_of(response) == 408
    assert time.monotonic() - begun < 30


def test_idle_connections_make_room_for_others(port):
    idle = [connect(port) for _ in range(200)]
    try:
        assert is_serving(port)
        assert status_of(exchange(port, request())) == 200
    finally:
        for connection in idle:
            connection.close()
