"""Asks `template_process`, which is started once for many requests: an interpreter and jinja2 take a tenth of a second.

It ends by itself after a while without requests, and is replaced after any request that it refused or that ended it.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from typing import Any

from medtune.data import template_process

# One step may take longer than all may together, such as one of a large product. Starting takes some tenths.
_PROCESS_SECONDS = template_process.MAX_SECONDS + 5


@lru_cache(maxsize=256)
def ask_renderer(request: str) -> dict[str, Any]:
    """What `template_process` answers to a request, an object of JSON in one line; the same one is made once."""
    with _PLACE.lock:
        return _ask(request)


class _Renderer:
    """The process; `is_fresh` until it has answered once."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.is_fresh = True
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
            start_new_session=True,  # a Ctrl-C is for this process, which then ends that one
        )

    def answer(self, request: str) -> str:
        """Its line, empty if it ends without one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return ""
        line = self.process.stdout.readline()
        self.is_fresh &= not line
        return line

    def end(self) -> int:
        """Its exit status, minus the signal that ended it."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # it had ended before it read the last request
                pipe.close()
        return self.process.wait()


class _Place:
    """Where the process is kept."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.renderer: _Renderer | None = None

    def take(self) -> _Renderer:
        """The one that runs, or a new one."""
        command = [sys.executable, "-P", template_process.__file__]
        if self.renderer is not None and self.renderer.command != command:
            self.end()
        if self.renderer is None:
            self.renderer = _Renderer(command)
        return self.renderer

    def end(self) -> int:
        """End it, if there is one; its exit status."""
        ending, self.renderer = self.renderer, None
        return 0 if ending is None else ending.end()

    def forget(self) -> None:
        """In a fork: it is the other process's."""
        if self.renderer is not None:
            self.renderer.process.returncode = 0  # it is not this one's to wait for
        self.lock, self.renderer = threading.Lock(), None


_PLACE = _Place()
atexit.register(_PLACE.end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PLACE.forget)


def _ask(request: str) -> dict[str, Any]:
    renderer = _PLACE.take()
    was_fresh = renderer.is_fresh
    late = threading.Event()

    def stop() -> None:
        late.set()
        renderer.process.kill()

    timer = threading.Timer(_PROCESS_SECONDS, stop)
    timer.start()
    try:
        line = renderer.answer(request)
    except BaseException:  # what it answers later would be taken for the answer to another request
        renderer.process.kill()
        _PLACE.end()
        raise
    finally:
        timer.cancel()
    if late.is_set():
        _PLACE.end()
        return {"refused": f"takes more than {template_process.MAX_SECONDS:g} s"}
    if line:
        answer: dict[str, Any] = json.loads(line)
        return answer
    status = _PLACE.end()
    # One that has answered before may have ended by itself in between.
    return {"refused": f"ends the process that renders it (status {status})"} if was_fresh else _ask(request)
