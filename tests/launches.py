"""Several processes as a launcher starts them, forked from the server that has imported the libraries."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess

from forked import Forked, fork


def start(
    processes: int, program: str | Path, *arguments: object, environment: Mapping[str, str] | None = None
) -> list[Forked]:
    """One process for each rank, on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        **(environment or {}),
    }
    here = int(common["LOCAL_WORLD_SIZE"])  # fewer than all stand for several machines
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank % here)} for rank in range(processes)]
    return [fork(program, *arguments, environment=one) for one in ranks]


def finish(started: Sequence[Forked], seconds: float = 120) -> list[CompletedProcess[str]]:
    """What each printed, and its exit status."""
    return [process.finish(seconds) for process in started]
