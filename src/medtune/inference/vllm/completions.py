"""Questions as token ids to vLLM's `/v1/completions`, many at once, each answer kept when it comes."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from medtune.errors import ModelError, first_line
from medtune.inference.generation import answer_of
from medtune.inference.predictions import Asked
from medtune.inference.vllm.program import DIRECTLY
from medtune.records import Answer
from medtune.storage.reading import DamagedError, check_type, parse_json

# For a whole answer; vLLM has no more questions at once than it was told.
ANSWER_SECONDS = 1800
# Before a question is asked again that the server failed at.
PAUSES = (1.0, 5.0)
_LARGEST_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where vLLM listens, the key that it asks for, and the name of the model that answers."""

    url: str
    key: str
    model: str


@dataclass(frozen=True)
class _Choice:
    text: str
    finish_reason: str | None
    token_ids: list[int] | None = None


@dataclass(frozen=True)
class _Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class _Completion:
    choices: list[_Choice]
    usage: _Usage


class _FailedHereError(Exception):
    """The server failed at a question, and may not fail again."""


def answer_rows(endpoint: Endpoint, asked: Asked, on_rows: Callable[[int], None]) -> None:
    """Have vLLM answer every row that is not answered yet, `plan.batch_size` of them at once.

    Raises ModelError, with what vLLM says, at the first question that it refuses, or fails at three times.
    """
    work, pool = asked.answering, ThreadPoolExecutor(asked.plan.batch_size, thread_name_prefix="vllm")
    under_way: dict[Future[Answer], int] = {}
    over = threading.Event()
    try:
        while work.to_do or under_way:
            while work.to_do and len(under_way) < asked.plan.batch_size:
                for row in work.to_do.popleft():
                    under_way[pool.submit(_answer, endpoint, asked, row, over)] = row
            ended, _ = wait(under_way, return_when=FIRST_COMPLETED)
            # Those that came are kept before one that failed ends it all.
            for one in sorted(ended, key=lambda one: one.exception() is not None):
                work.finish([under_way.pop(one)], [one.result()])
                on_rows(1)
    finally:
        # Without waiting for those under way: the end of the server, which comes next, ends them.
        over.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _answer(endpoint: Endpoint, asked: Asked, row: int, over: threading.Event) -> Answer:
    prompt, greedy = asked.prompts[row], asked.greedy
    body = {
        "model": endpoint.model,
        "prompt": prompt,
        "max_tokens": greedy.max_new_tokens,
        "temperature": 0,
        "stop_token_ids": sorted(greedy.end_token_ids),
        "return_token_ids": True,  # which versions before 0.10.2 pass over
    }
    for pause in (*PAUSES, None):
        try:
            return _read(_post(endpoint, body), asked, row)
        except _FailedHereError as error:
            if pause is None or over.wait(pause):
                fix = "the same command asks again what is not answered"
                raise ModelError("vLLM", str(error), fix) from None
    raise AssertionError


def _post(endpoint: Endpoint, body: dict[str, Any]) -> str:
    """The text of a completion. Raises ModelError if it is refused, and _FailedHereError if it failed."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.key}"}
    request = urllib.request.Request(f"{endpoint.url}/v1/completions", json.dumps(body).encode(), headers)
    try:
        with DIRECTLY.open(request, timeout=ANSWER_SECONDS) as response:
            return str(response.read().decode("utf-8"))
    except urllib.error.HTTPError as error:
        problem = f"status {error.code}: {_message(error)}"
        if error.code >= 500 or error.code == 429:
            raise _FailedHereError(problem) from None
        raise ModelError("vLLM", f"refuses a question, {problem}") from None
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        raise _FailedHereError(f"gives no answer ({first_line(error)})") from None


def _message(error: urllib.error.HTTPError) -> str:
    """What the server says of its refusal, in one line."""
    text = error.read(100_000).decode("utf-8", errors="replace")
    try:
        values = parse_json(text)
        message = values["error"]["message"] if "error" in values else values["message"]
    except (DamagedError, KeyError, TypeError):
        message = text
    return " ".join(str(message).split())[:_LARGEST_MESSAGE] or "it gives no reason"


def _read(text: str, asked: Asked, row: int) -> Answer:
    """The answer in a completion. Raises ModelError if it is none to these token ids, or has no proper end."""
    try:
        completion = check_type(_Completion, parse_json(text))
    except DamagedError as error:
        raise ModelError("vLLM", f"sends what is no completion ({error})") from None
    if len(completion.choices) != 1:
        raise ModelError("vLLM", f"sends {len(completion.choices)} answers to one question")
    choice, usage = completion.choices[0], completion.usage
    if usage.prompt_tokens != len(asked.prompts[row]):
        raise ModelError("vLLM", f"read {usage.prompt_tokens} tokens of a prompt of {len(asked.prompts[row])}")
    answer = choice.text.strip()
    if choice.token_ids is not None:  # decoded as other answers are
        answer = answer_of(asked.tokenizer, choice.token_ids, asked.greedy.end_token_ids).text
    match choice.finish_reason:
        case "stop":
            return Answer(answer, usage.completion_tokens, "stop")
        case "length" if usage.completion_tokens == asked.greedy.max_new_tokens:
            return Answer(answer, usage.completion_tokens, "length")
    raise ModelError("vLLM", f"ended an answer after {usage.completion_tokens} tokens: {choice.finish_reason}")
