"""Starting several processes on this machine, each with a GPU of its own, by torch's elastic launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from uuid import uuid4

from medtune.errors import ConfigError, Option
from medtune.runtime.interruption import INTERRUPTED_STATUS


def count_processes(wanted: str, *, on_cpu: bool) -> int:
    """How many processes are asked for: a number, or all the GPUs here. `on_cpu` takes any number without GPUs.

    Raises ConfigError. Nothing is allocated on a GPU.
    """
    import torch

    option, gpus = Option("gpus", int(wanted) if wanted.isdecimal() else wanted), torch.cuda.device_count()
    if wanted != "all" and not (wanted.isdecimal() and int(wanted) > 0):
        raise ConfigError(option, "neither a number nor `all`", "give how many GPUs to use")
    if gpus == 0 and not (on_cpu and wanted != "all"):
        raise ConfigError(option, "no CUDA GPU is visible", ("leave ", Option("gpus"), " out"))
    count = gpus if wanted == "all" else int(wanted)
    if 0 < gpus < count:
        raise ConfigError(option, f"{gpus} GPUs are visible", f"give {gpus} at most")
    return count


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `medtune` with these arguments in so many processes on this machine. Returns their exit status.

    They print by themselves, as far as they can; what a signal ended says the launcher.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
    )
    logging.disable()  # its report of a failure, which is said here in one line
    try:
        elastic_launch(config, sys.executable)("-m", "medtune", *arguments)
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode < 0:
            name = signal.Signals(-first.exitcode).name
            print(f"medtune: process {rank} of {processes} was ended by {name}", file=sys.stderr)
            return 1
        return int(first.exitcode)
    except SignalException:
        return INTERRUPTED_STATUS
    finally:
        logging.disable(logging.NOTSET)
    return 0
