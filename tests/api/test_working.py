"""One call at a time, stopped by signals and disks, with models that are freed however it ends."""

from __future__ import annotations

import errno
import os
import signal
import threading
import weakref
from pathlib import Path

import pytest

import medtune
from medtune.api.working import RunInterrupted, working
from medtune.errors import DiskError, Option, RunDirError

ROW = {"id": 1, "reference": "Gout hurts.", "prediction": "Gout hurts."}


def test_a_second_signal_stops_at_once_and_kills_nothing():
    from medtune.runtime import interruption

    def stop_twice() -> None:
        with working(), interruption.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.requested()
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the second one was ignored")

    with pytest.raises(RunInterrupted, match="SIGTERM"):
        stop_twice()
    with working():
        assert not interruption.requested()


def test_one_call_works_at_a_time(workplace: Path):
    problems: list[BaseException] = []

    def call() -> None:
        try:
            medtune.prepare("demo", "runs/thread")
        except RunDirError as error:
            problems.append(error)

    with working():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert "another thread" in str(problems[0])
    call()  # and in no thread that is at work
    assert len(problems) == 1
    thread = threading.Thread(target=lambda: medtune.compare([ROW], [ROW], metrics=["exact_match"]))
    thread.start()
    thread.join()


def test_a_full_disk_is_told_in_a_line_with_the_way_on():
    with pytest.raises(DiskError, match=r"/some/file: no space left .* resume=True$"), working():
        raise OSError(errno.ENOSPC, "No space left on device", "/some/file")


def test_a_failed_call_holds_nothing_for_who_keeps_its_error() -> None:
    class Model:
        pass

    def fail() -> None:
        model = Model()
        held.append(weakref.ref(model))
        raise ValueError("kept by a notebook")

    held: list[weakref.ref[Model]] = []
    with pytest.raises(ValueError, match="kept by a notebook") as kept, working():
        fail()
    assert kept.value.__traceback__ is not None
    assert [reference() for reference in held] == [None]


def test_messages_name_arguments_and_not_options() -> None:
    fix = ("add ", Option("resume"), " to continue it, or choose another ", Option("run_dir"))
    with pytest.raises(RunDirError, match="add resume=True to continue it, or choose another run_dir"), working():
        raise RunDirError("runs/x", "not empty", fix)
