"""One call at a time, stopped by signals and disks, with models that are freed however it ends."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import threading
import weakref
from pathlib import Path

import pytest

import medtune
from medtune.api.runs import Run
from medtune.api.working import RunInterrupted, as_call, spelled_as_calls, working
from medtune.config.evaluation import FileSettings
from medtune.errors import Command, DiskError, MedtuneError, Option, RunDirError, spell_out

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


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Option("run_dir"), "run_dir"),
        (Option("resume"), "resume=True"),
        (Option("without_evaluation"), "options=['without-evaluation']"),
        (Option("metric", "nosuch"), "metrics nosuch"),
        (Option("gpus", "all"), "gpus='all'"),
        (Option("gpus", 2), "gpus=2"),
        (Option("set"), "overrides"),
        (Option("set", "training.epochs=2"), "overrides=['training.epochs=2']"),
        (Command("data prepare"), "`medtune.prepare()`"),
        (Command("evaluate", "runs/x", (Option("model", "tuned"),)), "`medtune.evaluate('runs/x', model='tuned')`"),
        (
            Command("run", "RECIPE", (Option("run_dir", "runs/x"), Option("resume"))),
            "`medtune.run('RECIPE', run_dir='runs/x', resume=True)`",
        ),
        (Command("merge", "RUN", (Option("to", "DIR"),)), "`medtune.load_run('RUN').merge(to='DIR')`"),
        (Command("recipes"), "`medtune recipes`"),
        ("text", "text"),
    ],
)
def test_how_a_call_spells_it(part: object, text: str):
    assert as_call(part) == text


def test_what_is_spelled_is_an_argument_of_a_function():
    taken = {name for call in (medtune.run, medtune.compare, medtune.plan, Run.merge, Run.publish, Run.ask)
             for name in inspect.signature(call).parameters} | FileSettings.__annotations__.keys()  # fmt: skip
    options = ("run_dir", "resume", "set", "metric", "primary", *FileSettings.__annotations__, "gpu", "to", "dtype",
               "measure", "base", "base_model", "merged", "private", "overwrite", "without_evaluation",
               "repo")  # fmt: skip
    assert {as_call(Option(name)).partition("=")[0] for name in options} <= taken


def test_an_error_that_leaves_a_function_is_spelled_for_its_caller():
    @spelled_as_calls()
    def fail() -> None:
        raise MedtuneError("x", "not empty", ("add ", Option("resume")))

    with pytest.raises(MedtuneError, match=r"^x: not empty; add resume=True$") as caught:
        fail()
    assert spell_out(caught.value.problems[0].fix) == "add --resume"


def test_a_recipe_and_a_run_are_refused_in_words_of_python(workplace):
    with pytest.raises(MedtuneError, match=r"^overrides=\['epochs'\]: must read key.path=value, such as overrides=\["):
        medtune.load_recipe("demo", ["epochs"])
    with pytest.raises(MedtuneError, match=r"; make one with `medtune.run\('RECIPE'\)`$"):
        medtune.load_run("nosuch")
