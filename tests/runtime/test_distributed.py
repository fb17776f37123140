"""What the processes of a launch tell each other, in processes of their own; and how they end."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from launches import finish, start
from medtune.runtime.distributed import barrier, exchange, from_main, joined, when_ended


def test_one_process_talks_to_itself() -> None:
    before = dict(os.environ)
    with joined():
        assert exchange({"a": 1}) == [{"a": 1}]
        assert from_main(lambda: 3) == 3
        barrier()
        when_ended(lambda status: pytest.fail("there is no launch that could end"))
    assert dict(os.environ) == before


TELLING = """
import json, os, sys, torch
from medtune.runtime.distributed import barrier, exchange, from_main, joined, when_ended
from medtune.runtime.tensors import add_up, open_group
from medtune.runtime.launch import is_main, rank, world_size

with joined():
    told = [exchange([rank(), number]) for number in range(3)]
    asked = [from_main(lambda: number * 10 + rank()) for number in range(20)]
    open_group()
    sums = torch.arange(4.0) * (rank() + 1)
    add_up(sums).wait()
    with joined():  # one inside another changes nothing
        hidden = [name for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if name in os.environ]
    barrier()
    when_ended(lambda status: print("status", status))
    print(json.dumps([told, asked, sums.tolist(), world_size(), hidden]))
print(json.dumps(os.environ["RANK"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_every_process_is_told_the_same(tmp_path: Path, processes: int) -> None:
    (tmp_path / "script.py").write_text(TELLING)
    for rank, done in enumerate(finish(start(processes, tmp_path / "script.py"))):
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines.pop(1) == "status 0" if rank == 0 else len(lines) == 2
        told, asked, sums, size, hidden = json.loads(lines[0])
        assert told == [[[other, number] for other in range(processes)] for number in range(3)]
        assert asked == [number * 10 for number in range(20)]
        assert sums == [number * sum(range(1, processes + 1)) for number in (0.0, 1.0, 2.0, 3.0)]
        assert size == processes
        assert hidden == []
        assert json.loads(lines[1]) == str(rank)


def ended(tmp_path: Path, how: str, who: int) -> tuple[list[int], list[str], str]:
    """Statuses and last lines of two processes of which `who` ends, and the status that was recorded."""
    script = """
import signal, sys, time
import medtune.cli
from medtune.__main__ import main
from medtune.errors import ConfigError
from medtune.runtime import interruption
from medtune.runtime.distributed import exchange, joined, when_ended
from medtune.runtime.launch import rank

how, who, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.argv[1:] = ["run", "demo"]


def command(**options):
    with joined():
        when_ended(lambda status: open(file, "w").write(str(status)))
        exchange(1)
        if rank() == who:
            if how == "signal":
                raise interruption.Interrupted(signal.SIGTERM)
            if how == "bug":
                raise ZeroDivisionError("by zero")
            raise ConfigError("row 7", "holds no answer", "leave it out")
        if how == "deaf":  # as in a library that waits for what never comes
            time.sleep(100)
        exchange(2)


medtune.cli.app = command
main()
"""
    (tmp_path / "script.py").write_text(script)
    done = finish(start(2, tmp_path / "script.py", how, who, tmp_path / "status"), 60)
    lines = [one.stderr.splitlines()[-1] if one.stderr else "" for one in done]
    return [one.returncode for one in done], lines, (tmp_path / "status").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_an_error_of_one_ends_all_and_is_said_once(tmp_path: Path, who: int) -> None:
    began = time.monotonic()
    said = "row 7: holds no answer; leave it out"
    line = f"medtune: {said}" if who == 0 else f"medtune: process 1 of 2: {said}"
    assert ended(tmp_path, "error", who) == ([2, 2], [line, ""], "2")
    assert time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_signal_to_one_ends_all_with_status_75(tmp_path: Path, who: int) -> None:
    statuses, lines, recorded = ended(tmp_path, "signal", who)
    assert (statuses, recorded) == ([75, 75], "75")
    assert lines == ["medtune: interrupted (SIGTERM); go on with `medtune run demo --resume`", ""]


@pytest.mark.slow
def test_a_bug_in_one_shows_its_traceback_and_ends_all(tmp_path: Path) -> None:
    statuses, lines, recorded = ended(tmp_path, "bug", 1)
    assert (statuses, recorded) == ([1, 1], "1")
    assert lines == ["medtune: process 1 of 2: ZeroDivisionError: by zero", "ZeroDivisionError: by zero"]


@pytest.mark.slow
@pytest.mark.parametrize("who", [0, 1])
def test_a_process_that_cannot_notice_is_ended(tmp_path: Path, who: int) -> None:
    statuses, lines, recorded = ended(tmp_path, "deaf", who)
    assert (statuses, recorded) == ([2, 2], "2")
    assert lines[0].endswith("row 7: holds no answer; leave it out")
