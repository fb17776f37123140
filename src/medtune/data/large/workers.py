"""Processes that read pieces beside each other; what comes of it does not depend on how many there are."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict
from queue import SimpleQueue

from medtune.data.large.reading import Done, Job, read_piece
from medtune.errors import DataError

# Each takes some 300 MB.
MOST_WORKERS = 16
_MODULE = "medtune.data.large.worker"
# How often progress is told, and a signal seen.
_LOOK_SECONDS = 0.5
_Process = subprocess.Popen[str]


def worker_count(pieces: int) -> int:
    """How many processes read so many pieces."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_WORKERS, pieces))


def read_all(jobs: Sequence[Job], workers: int, advance: Callable[[int], None]) -> Iterator[Done]:
    """What each job gives, in order. Raises the DataError of the first job that has one."""
    if workers < 2:
        for job in jobs:
            yield read_piece(job, advance)
        return
    # Processes are ended first, so that no thread waits for them, and their pipes closed last.
    with _processes(workers) as processes, ThreadPoolExecutor(workers) as pool, _ended(processes):
        idle, read = SimpleQueue[_Process](), SimpleQueue[int]()
        for process in processes:
            idle.put(process)
        waiting: dict[int, Future[Done]] = {}
        for number in range(len(jobs)):
            # Some ahead of the one that is due, so that a slow piece does not keep the others waiting.
            for ahead in range(number + len(waiting), min(len(jobs), number + 4 * workers)):
                waiting[ahead] = pool.submit(_ask, idle, jobs[ahead], read.put)
            due = waiting.pop(number)
            while not due.done():
                wait([due], timeout=_LOOK_SECONDS)
                _pass_on(read, advance)
            _pass_on(read, advance)
            yield due.result()


def _pass_on(read: "SimpleQueue[int]", advance: Callable[[int], None]) -> None:
    """Tell the rows read so far: from this thread, which knows who listens."""
    while not read.empty():
        advance(read.get())


@contextmanager
def _processes(count: int) -> Iterator[list[_Process]]:
    paths = os.pathsep.join(filter(None, sys.path))
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # a Ctrl-C is for this process, which then ends those
        )
        for _ in range(count)
    ]
    try:
        yield processes
    finally:
        for stream in (stream for process in processes for stream in (process.stdin, process.stdout)):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()


@contextmanager
def _ended(processes: Sequence[_Process]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _ask(idle: "SimpleQueue[_Process]", job: Job, advance: Callable[[int], None]) -> Done:
    process = idle.get()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            values = json.loads(line)
            if "rows" in values:
                advance(values["rows"])
                continue
            if "error" in values:
                raise DataError(*values["error"])
            return Done.from_json(values["done"])
    except BrokenPipeError:
        pass
    finally:
        idle.put(process)
    problem = f"the process that reads it ended (status {process.wait()})"
    raise DataError(job.piece.path, problem, "free some memory, and run it again")
