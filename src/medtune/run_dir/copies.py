"""Copies of a run's files for machines of a launch that do not see the disk on which the first process writes them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from medtune.run_dir.layout import RunFiles
from medtune.runtime.distributed import barrier, bytes_from_main, exchange, from_main
from medtune.runtime.launch import is_main, local_rank, machine_processes, world_size
from medtune.runtime.progress import say
from medtune.storage.reading import describe_file
from medtune.storage.writing import replacing_file

MARK_NAME = ".launch"
# Bytes that travel at once, and how many such pieces may wait for those who read them.
PIECE_BYTES, PIECES = 4 * 2**20, 16
# Seconds in which a network's file system shows what another machine has written.
_LATE = 3.0


def copy_to_other_machines(run: RunFiles, files: Iterable[Path]) -> None:
    """Bring these files of the first process's run to every machine that does not see them, as they are now.

    What a machine has already is not sent. All processes have to call this; on one machine it does nothing.
    """
    if machine_processes() == world_size() or _all_see_the_first(run):
        return
    described = from_main(
        lambda: {file.relative_to(run.path).as_posix(): describe_file(file) for file in files if file.is_file()}
    )
    receives = local_rank() == 0 and not is_main()
    lacking = [name for name, known in described.items() if receives and not _is_here(run.path / name, known)]
    wanted = sorted(set(chain.from_iterable(exchange(lacking))))
    if wanted:
        size = sum(described[name]["bytes"] for name in wanted)
        say(f"{len(wanted)} files of {size / 1e6:,.1f} MB go to machines that do not see {run.path}")
    for name in wanted:
        _copy(run.path / name, described[name]["bytes"], receives=name in lacking)
    barrier()


def _all_see_the_first(run: RunFiles) -> bool:
    """Whether every process finds what the first one has just written into the run."""
    mark = run.path / MARK_NAME

    def leave_mark() -> str:
        text = secrets.token_hex(8)
        mark.write_text(text)
        return text

    text, deadline = from_main(leave_mark), time.monotonic() + _LATE
    while not (sees := mark.is_file() and mark.read_text() == text) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = exchange(sees)
    if is_main():
        mark.unlink()
    return all(found)


def _is_here(file: Path, known: Mapping[str, Any]) -> bool:
    return file.is_file() and file.stat().st_size == known["bytes"] and describe_file(file) == known


def _copy(file: Path, size: int, *, receives: bool) -> None:
    count = max(1, -(-size // PIECE_BYTES))
    pieces = _pieces(file) if is_main() else iter(())
    with replacing_file(file) if receives else nullcontext() as temporary:
        for number in range(1, count + 1):
            piece = bytes_from_main(lambda: next(pieces, b""), wanted=receives)
            if temporary is not None:
                with temporary.open("ab") as part:
                    part.write(piece)
            if number % PIECES == 0:
                barrier()


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as content:
        while piece := content.read(PIECE_BYTES):
            yield piece
