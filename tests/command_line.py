"""The `medtune` command, run in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from medtune.__main__ import main


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


Medtune = Callable[..., Result]


def command_runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Medtune:
    """A function that runs one command line and hands back what it did."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer puts its own there

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["medtune", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        code = caught.value.code
        out, err = capsys.readouterr()
        return Result(code if isinstance(code, int) else 0 if code is None else 1, out, err)

    return run


def medtune(*arguments: object, status: int = 0) -> None:
    """Run one command line: what it prints is for capsys or capfd, and it must end with `status`, as in a shell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medtune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
    assert (stopped.value.code or 0) == status


def lines_on(text: str, subject: str) -> list[str]:
    """The lines of `medtune doctor` on one subject."""
    return [line for line in text.splitlines() if line.split(": ")[1:2] == [subject]]
