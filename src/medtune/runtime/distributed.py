"""The processes of one launch, as by `torchrun` or `accelerate launch`: which one this is, and what all of them know.

A launcher tells each process its place in the environment, so that all but `gather_counts` does without torch.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from medtune.errors import ConfigError, RunDirError, show_value

if TYPE_CHECKING:
    import torch

# A launcher ends all processes as soon as one ends. Seconds in which the first one can print why.
_HEAD_START = 10.0


def rank() -> int:
    """This process's number among all that were launched; 0 without a launcher."""
    return _launched("RANK", 0)


def local_rank() -> int:
    """This process's number among those on its machine; 0 without a launcher."""
    return _launched("LOCAL_RANK", 0)


def world_size() -> int:
    """How many processes were launched; 1 without a launcher."""
    return _launched("WORLD_SIZE", 1)


def is_main() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


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
    fix = "start it without the launcher: only training takes several, by `accelerate launch -m medtune train RUN`"
    raise RunDirError(f"{command} runs as one process, and {world_size()} were launched", fix=fix)


def gather_counts(counts: Sequence[int], *, stop: bool, device: torch.device) -> tuple[list[list[int]], bool]:
    """`counts` of every process in order of rank, and whether any process was told to `stop`: all of them then do.

    One exchange for both, which waits for `device`: training needs it at every step. Every process has to call this
    equally often, with equally many counts.
    """
    if world_size() == 1:
        return [list(counts)], stop
    import torch

    own = torch.tensor([*counts, stop], device=device)
    everyone = [torch.empty_like(own) for _ in range(world_size())]
    torch.distributed.all_gather(everyone, own)
    rows: list[list[int]] = torch.stack(everyone).tolist()
    return [row[:-1] for row in rows], any(row[-1] for row in rows)
