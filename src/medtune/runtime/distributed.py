"""What the processes of one launch tell each other, so that all of medtune is one code for one process and for many.

Values go as JSON through the launch's key-value store, where a process waits in Python: signals reach it, and it learns
that another has ended. Tensors go another way, `runtime.tensors`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

from medtune.errors import ConfigError, MedtuneError, show_value
from medtune.runtime.launch import Launch, joined_launch, local_rank, machine_processes, rank, set_joined, world_size

T = TypeVar("T")
# What a launcher sets, hidden from libraries while this module does what they would do with it.
_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
# Seconds between looks for the end of another process, and until a process that cannot be reached in a library's
# exchange is ended.
_LOOK, _GRACE = 0.5, 5.0
# Seconds for all processes to come, and for an exchange of tensors: the first validation of one may take long.
PATIENCE = 3600
# Seconds from one look for a value to the next: at first, and at most.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.05


class PeerEnded(BaseException):
    """Another process has ended, which ends this one. Not an Exception, so that nothing handles it and continues."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.line, self.status = line, status


# Joining and ending ---------------------------------------------------------------------------------------------------


@contextmanager
def joined() -> Iterator[None]:
    """Let the processes of this launch talk to each other in this block, and end together.

    What ends one with an error or a signal ends the others with PeerEnded. Each sees its own GPU alone. Libraries take
    each for a single process. For one process, and inside such a block, it does nothing.
    """
    if world_size() == 1 or joined_launch() is not None:
        yield
        return
    before = {name: os.environ.get(name) for name in (*_PLACE, "CUDA_VISIBLE_DEVICES")}
    launch = _join()
    set_joined(launch)
    watch = threading.Thread(target=_watch, args=(launch,), daemon=True)
    watch.start()
    status = 0
    try:
        yield
        barrier()
    except PeerEnded as ended:
        status = ended.status
        raise
    except BaseException as error:
        status = _tell_end(launch, error)
        raise
    finally:
        launch.over.set()
        if launch.rank == 0:
            launch.record_end(status)
        _leave_group()
        watch.join()
        set_joined(None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _join() -> Launch:
    import torch
    from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

    place = rank(), local_rank(), world_size(), machine_processes()
    store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=PATIENCE)))
    _see_own_gpu(place[1])
    # CUDA reads that once, when it is first asked for anything.
    if torch.cuda.is_initialized() or (torch.cuda.is_available() and torch.accelerator.device_count() != 1):
        problem = "was used in this process before it joined the others, and shows it all GPUs"
        raise ConfigError("CUDA", problem, "call medtune before anything else that uses a GPU")
    for name in _PLACE:
        os.environ.pop(name, None)
    return Launch(*place, PrefixStore("medtune", store))


def _see_own_gpu(number: int) -> None:
    """Let this process see the GPU of that number alone, of those that the launch may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number)
    elif visible.strip():
        gpus = visible.split(",")
        if number >= len(gpus):
            problem = f"names {len(gpus)} GPUs, and process {number} of this machine has none"
            raise ConfigError(f"CUDA_VISIBLE_DEVICES={show_value(visible)}", problem, "launch fewer processes")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number]


def when_ended(record: Callable[[int], None]) -> None:
    """Have the first process call `record` with the exit status of all, once that is known."""
    if launch := joined_launch():
        launch.record_end = record


def _tell_end(launch: Launch, error: BaseException) -> int:
    """Tell the others why this process ends, and its exit status, which is returned. They hear the first one to end."""
    status = int(getattr(error, "exit_status", 2 if isinstance(error, MedtuneError) else 1))
    words = str(error) if isinstance(error, MedtuneError) else f"{type(error).__name__}: {error}"
    line = words if launch.rank == 0 else f"process {launch.rank} of {launch.world_size}: {words}"
    with suppress(RuntimeError):  # where the store's process has ended, and with it the launch
        if launch.store.add("ends", 1) == 1:
            launch.store.set("ended", json.dumps([line, status]))
        if launch.rank == 0:  # with which the store may end
            deadline = time.monotonic() + _GRACE
            while launch.store.add("heard", 0) < launch.world_size - 1 and time.monotonic() < deadline:
                time.sleep(_LONGEST_PAUSE)
    return status


def end_of_another(launch: Launch, store: Any) -> PeerEnded | None:
    """What another process has told of its end; a store that is gone means that the first process is."""
    try:
        if not store.check(["ended"]):
            return None
        line, status = json.loads(store.get("ended"))
        if not launch.heard:
            launch.heard = True
            store.add("heard", 1)
    except RuntimeError:
        line, status = "the first process of the launch has ended, or its machine cannot be reached", 1
    return PeerEnded(line, status)


def _watch(launch: Launch) -> None:
    """End this process when another has ended and it cannot notice, for it waits in a library's exchange."""
    store = launch.store.clone()
    while not launch.over.wait(_LOOK):
        if ended := end_of_another(launch, store):
            if not launch.over.wait(_GRACE):
                if launch.rank == 0:
                    print(f"medtune: {ended.line}", file=sys.stderr, flush=True)
                    launch.record_end(ended.status)
                os._exit(ended.status)
            return


# Values ---------------------------------------------------------------------------------------------------------------


def exchange(value: T) -> list[T]:
    """`value`, which JSON can hold, of every process in order of rank. All have to call it, equally often."""
    launch = joined_launch()
    if launch is None:
        return [value]
    launch.exchanges += 1
    number = launch.exchanges
    if launch.rank != 0:
        launch.store.set(f"{number}/{launch.rank}", json.dumps(value))
        return list(json.loads(_take(launch, f"{number}/all")))
    keys = [f"{number}/{other}" for other in range(1, launch.world_size)]
    text = json.dumps([value, *(json.loads(_take(launch, key)) for key in keys)])
    # All have come here, so that whatever they were told before has been read.
    for key in [*keys, *launch.told]:
        launch.store.delete_key(key)
    launch.told = []
    _tell(launch, f"{number}/all", text)
    return list(json.loads(text))


def from_main(work: Callable[[], T]) -> T:
    """What `work` returns in the first process, which alone does it; JSON can hold it. All have to call this."""
    if joined_launch() is None:
        return work()
    found: T = json.loads(bytes_from_main(lambda: json.dumps(work()).encode()))
    return found


def bytes_from_main(work: Callable[[], bytes], *, wanted: bool = True) -> bytes:
    """As `from_main`, of bytes; empty in another process that has them not `wanted`."""
    launch = joined_launch()
    if launch is None:
        return work()
    launch.exchanges += 1
    key = f"{launch.exchanges}/all"
    if launch.rank == 0:
        content = work()
        _tell(launch, key, content)
        return content
    return bytes(_take(launch, key)) if wanted else b""


def barrier() -> None:
    """Wait for all processes."""
    exchange(None)


def _tell(launch: Launch, key: str, value: str | bytes) -> None:
    launch.store.set(key, value)
    launch.told.append(key)


def _take(launch: Launch, key: str) -> Any:
    """A value of the store once it is there. Raises PeerEnded."""
    pause, look = _SHORTEST_PAUSE, time.monotonic() + _LOOK
    while True:
        with suppress(RuntimeError):  # `end_of_another` says it
            if launch.store.check([key]):
                return launch.store.get(key)
        if time.monotonic() >= look:
            if ended := end_of_another(launch, launch.store):
                raise ended
            look = time.monotonic() + _LOOK
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _leave_group() -> None:
    """End the exchange of tensors, if there was any."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
