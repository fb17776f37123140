"""Which process of a launch this is, as by `torchrun` or `accelerate launch`; without one it is the only process.

A launcher tells each process its place in the environment, so that torch is not needed to know it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heapreplace
from typing import Any

from medtune.errors import ConfigError, RunDirError, show_value

# A launcher ends all processes as soon as one ends. Seconds in which the first one can say why.
_HEAD_START = 10.0


@dataclass
class Launch:
    """This process's place in a launch, and what it needs to talk to the others."""

    rank: int
    local_rank: int
    world_size: int
    machine_processes: int
    store: Any
    exchanges: int = 0
    told: list[str] = field(default_factory=list)  # keys that the others may not have read yet
    record_end: Callable[[int], None] = lambda status: None
    heard: bool = False  # of the end of another process
    over: threading.Event = field(default_factory=threading.Event)


# Seconds from one look whether it has to the next.
_LOOK = 0.1
# Set while the processes are joined; the store stays.
_joined: Launch | None = None
_store: Any = None


def joined_launch() -> Launch | None:
    """The launch whose processes can talk to each other now."""
    return _joined


def set_joined(launch: Launch | None) -> None:
    """Say which that is."""
    global _joined, _store
    _joined = launch
    _store = _store if launch is None else launch.store


def rank() -> int:
    """This process's number among all that were launched; 0 without a launcher."""
    return _joined.rank if _joined else _launched("RANK", 0)


def local_rank() -> int:
    """This process's number among those on its machine; 0 without a launcher."""
    return _joined.local_rank if _joined else _launched("LOCAL_RANK", 0)


def world_size() -> int:
    """How many processes were launched; 1 without a launcher."""
    return _joined.world_size if _joined else _launched("WORLD_SIZE", 1)


def is_launched() -> bool:
    """Whether a launcher started this process, be it the only one."""
    return _joined is not None or bool(os.environ.get("RANK", "").strip())


def machine_processes() -> int:
    """How many of the launched processes are on this machine."""
    return _joined.machine_processes if _joined else _launched("LOCAL_WORLD_SIZE", world_size())


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def gpu_index() -> int:
    """Which of the GPUs that this process sees is its own."""
    return 0 if _joined else local_rank()  # each sees its own alone


def _launched(name: str, alone: int) -> int:
    # Job templates set it to nothing where there is no launch.
    given = os.environ.get(name, "").strip()
    try:
        return int(given or alone)
    except ValueError:
        raise ConfigError(f"{name}={show_value(given)} in the environment", "must be a number", "unset it") from None


def require_single_process(command: str) -> None:
    """Raises RunDirError in the first of several processes; the others exit with status 2 and print nothing."""
    if world_size() == 1:
        return
    if not is_main():
        try:
            time.sleep(_HEAD_START)
        finally:  # the launcher's signal included
            sys.exit(2)
    fix = "start it without the launcher: only `run`, `train` and `evaluate` take several"
    raise RunDirError(f"{command} runs as one process, and {world_size()} were launched", fix=fix)


def balanced_shares(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Share out `costs` over `parts` so that the sums are about equal: each, the largest first, to the least so far.

    Returns sorted indices into `costs` for every part. The result depends on the costs alone.
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0.0, part) for part in range(parts)]  # a heap
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, part = loads[0]
        shares[part].append(index)
        heapreplace(loads, (load + costs[index], part))
    return [sorted(indices) for indices in shares]


def own_share(costs: Sequence[float]) -> list[int]:
    """The indices into `costs` that are this process's, where all share them out; all of them for one."""
    return balanced_shares(costs, world_size())[rank()]


def wait_for_words() -> None:
    """Give the first process the time to say why all of them end: as soon as one has ended the launcher kills it.

    It says that it has by calling this.
    """
    deadline = time.monotonic() + _HEAD_START
    with suppress(RuntimeError):  # the store ends with the launch
        if is_main():
            if _store is not None:
                _store.set("said", "")
            return
        # Processes that have not joined the others can but give it time.
        while time.monotonic() < deadline and not (_store is not None and _store.check(["said"])):
            time.sleep(_LOOK)
