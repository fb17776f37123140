"""What a call changes in the process, and that it is given back; and who gets medtune's log."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import medtune
from medtune.pipeline.edge import process_edge
from medtune.runtime.process import prepare_process
from medtune.runtime.progress import say
from stopping import write_recipe
from tiny_model import Tiny

ROW = {"id": "1", "reference": "Gout hurts.", "prediction": "Gout hurts."}


def process_state() -> dict[str, object]:
    """Everything of this process that a call could leave changed."""
    import datasets
    import transformers
    from huggingface_hub.utils import are_progress_bars_disabled

    manager = logging.Logger.manager
    loggers = {name: one for name, one in manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {
        "environment": dict(os.environ),
        "levels": {name: logger.level for name, logger in loggers.items()},
        "handlers": {name: list(logger.handlers) for name, logger in loggers.items()},
        "root": (logging.root.level, list(logging.root.handlers), manager.disable),
        "warnings": list(warnings.filters),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook),
        "traced": (sys.gettrace(), threading.gettrace()),
        "limits": (resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_FSIZE)),
        "verbosity": transformers.logging.get_verbosity(),
        "bars": (
            transformers.utils.logging.is_progress_bar_enabled(),
            datasets.are_progress_bars_disabled(),
            are_progress_bars_disabled(),
        ),
    }


def _fail(recipe: Path) -> None:
    with pytest.raises(medtune.MedtuneError):
        medtune.plan(recipe, overrides={"model.base": "nowhere"})


CALLS: dict[str, Callable[[Path], object]] = {
    "plan": lambda recipe: medtune.plan(recipe, "t4"),
    "doctor": lambda recipe: medtune.doctor(),
    "score": lambda recipe: medtune.score([ROW], metrics=["exact_match", "rougeL"], resamples=500),
    "failed": _fail,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_gives_back_what_it_set(
    call: Callable[[Path], object], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    recipe = write_recipe(tiny, tmp_path)
    call(recipe)  # a library that is loaded sets up its own logger
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    transformers.logging.set_verbosity_info()
    transformers.logging.enable_progress_bar()
    for name in ("trl", "datasets", "httpx"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    before = process_state()
    call(recipe)
    after = process_state()
    transformers.logging.set_verbosity_warning()
    for what, value in before.items():
        assert after[what] == value, what


def test_libraries_are_quiet_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    with process_edge():
        prepare_process()
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
        assert transformers.logging.get_verbosity() == logging.ERROR
        assert logging.getLogger("trl").level == logging.ERROR
        os.environ["MEDTUNE_TEST"] = "set by a library"
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    assert "MEDTUNE_TEST" not in os.environ


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """medtune's logger as a program finds it."""
    logger = logging.getLogger("medtune")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    logger.manager._clear_cache()
    return logger


def test_log_lines_go_to_stderr(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    with process_edge():
        say("a \x1b[31mline")
        logging.getLogger("medtune.storage.hub").warning("from the cache")
    say("nobody listens")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "a \\x1b[31mline\nfrom the cache\n")
    assert (log.handlers, log.level) == ([], logging.NOTSET)


def test_a_program_takes_log_lines_elsewhere(
    log: logging.Logger, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    handler = logging.FileHandler(tmp_path / "log")
    log.addHandler(handler)
    with process_edge():
        say("a line")
    handler.close()
    assert (tmp_path / "log").read_text() == "a line\n"
    assert capsys.readouterr().err == ""
    assert log.handlers == [handler]


def test_a_program_silences_log_lines(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log.setLevel(logging.ERROR)
    with process_edge():
        say("a line")
    assert capsys.readouterr().err == ""
    assert log.level == logging.ERROR
