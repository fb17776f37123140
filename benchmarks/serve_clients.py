"""Clients of an OpenAI-compatible server that cost next to nothing beside it, each checking its own answers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_TEXT = re.compile(rb'"content":\s*"[^"]')
# A model's name and a question.
Job = tuple[str, str]


@dataclass
class Tally:
    """What clients counted: answers that were whole in time, their tokens and seconds, and what was wrong."""

    requests: int = 0
    errors: int = 0
    mixed_up: int = 0
    differing: int = 0
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)
    first_text: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """Where clients ask, what, and what they expect; `names` maps our names of models to the server's."""

    port: int
    jobs: Sequence[Job]
    expected: Mapping[Job, str]
    max_tokens: int
    names: Mapping[str, str]


async def ask_for(load: Load, clients: int, seconds: float, warm_up: float) -> Tally:
    """`clients` at once, each with one request at a time, for `seconds` after `warm_up` seconds that do not count."""
    tally = Tally()
    start = time.monotonic() + warm_up
    window = (start, start + seconds)
    await asyncio.gather(*(_client(load, number, clients, window, tally) for number in range(clients)))
    return tally


async def _client(load: Load, number: int, clients: int, window: tuple[float, float], tally: Tally) -> None:
    turn = 0
    connection = None
    while time.monotonic() < window[1]:
        job = load.jobs[(number + turn * clients) % len(load.jobs)]
        streams = (number + turn) % 2 == 0
        turn += 1
        begun = time.monotonic()
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", load.port)
            text, tokens, first = await _ask(connection, load, job, streams=streams)
        except (OSError, ValueError, EOFError, KeyError, IndexError) as error:
            tally.errors += 1
            tally.problems.append(f"{type(error).__name__}: {error}"[:200])
            connection = None
            await asyncio.sleep(0.05)
            continue
        ended = time.monotonic()
        if text != load.expected.get(job, text):
            tally.differing += 1
            tally.mixed_up += text in [other for key, other in load.expected.items() if key != job]
        if window[0] <= ended <= window[1]:
            tally.requests += 1
            tally.tokens += tokens
            tally.seconds.append(ended - begun)
            if streams:
                tally.first_text.append(first - begun)
    if connection is not None:
        connection[1].close()


async def _ask(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], load: Load, job: Job, *, streams: bool
) -> tuple[str, int, float]:
    """The answer's text, its tokens, and when its first piece came."""
    reader, writer = connection
    model, question = job
    body: dict[str, Any] = {
        "model": load.names[model], "messages": [{"role": "user", "content": question}],
        "max_tokens": load.max_tokens, "temperature": 0, "stream": streams,
    }  # fmt: skip
    if streams:
        body["stream_options"] = {"include_usage": True}
    content = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    status, headers = await _read_head(reader)
    pieces, first = [], 0.0
    async for piece in _read_body(reader, headers):
        if _TEXT.search(piece):  # a stream begins with the role alone
            first = first or time.monotonic()
        pieces.append(piece)
    received = b"".join(pieces).decode()
    if status != 200:
        raise ValueError(f"status {status}: {received}")
    if not streams:
        made = json.loads(received)
        return made["choices"][0]["message"]["content"].strip(), made["usage"]["completion_tokens"], first
    events = [json.loads(line[6:]) for line in received.splitlines() if line.startswith("data: {")]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event.get("choices"))
    usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
    if usage is None:
        raise ValueError(f"a stream without its end: {received[-150:]}")
    return text.strip(), usage["completion_tokens"], first


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split(" ")[1]), headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> Any:
    if "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
        return
    while size := int(await reader.readline(), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
