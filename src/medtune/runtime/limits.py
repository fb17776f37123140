"""Bounds on what a program of others may take while it runs in this process: a chat template is such a program."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class BoundReachedError(Exception):
    """It went beyond a bound; the text says which."""


@contextmanager
def bounded(steps: int, seconds: float, memory_bytes: int) -> Iterator[None]:
    """Stop the block after so many lines of Python or seconds, or where it asks for so much more memory.

    Raises BoundReachedError. Memory is bounded where the system can do it, which is on Linux.
    """
    deadline, left, earlier = time.monotonic() + seconds, steps, sys.gettrace()

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise BoundReachedError(f"takes more than {steps:,} steps")
        if time.monotonic() > deadline:
            raise BoundReachedError(f"takes more than {seconds:g} s")
        return count

    with _memory_limit(memory_bytes):
        sys.settrace(count)
        try:
            yield
        except MemoryError:
            raise BoundReachedError(f"takes more than {memory_bytes >> 20:,} MiB of memory") from None
        finally:
            sys.settrace(earlier)


@contextmanager
def _memory_limit(more: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + more
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
