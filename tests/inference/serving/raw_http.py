"""Requests byte by byte, as no client in good faith sends them."""

import json
import socket
import time

BODY = json.dumps({"model": "tuned", "messages": [{"role": "user", "content": "Gout ?"}], "max_tokens": 2}).encode()


PATH = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"


JSON = "Content-Type: application/json\r\n"


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def exchange(port, *pieces, pause=0.0):
    """All that comes back until the other side closes, or says all that it has to."""
    with connect(port) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece if isinstance(piece, bytes) else piece.encode())
                time.sleep(pause)
        except OSError:  # it has closed already
            pass
        received = b""
        try:
            while more := connection.recv(65536):
                received += more
        except OSError:
            pass
        return received.decode("latin-1")


def status_of(response):
    return int(response.split(" ", 2)[1]) if response.startswith("HTTP/1.1 ") else None


def request(body=BODY, headers=JSON):
    return (f"{PATH}{headers}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode() + body


def is_serving(port):
    response = exchange(port, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return status_of(response) == 200
