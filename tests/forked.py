"""Real processes without the seconds that imports take: forked from a server that has imported the libraries once.

They have a pid, take real signals and end with a real exit status. What measures a fresh interpreter starts one.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

# One server for each pytest process. It imports and never computes, so no fork loses a thread of torch.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["medtune.api", "medtune.cli", "medtune.pipeline", "medtune.training.sft", "peft"])


@dataclass(frozen=True)
class Forked:
    """A process, and the files that its output goes to."""

    process: BaseProcess
    folder: TemporaryDirectory[str]
    out: Path
    err: Path

    def poll(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def finish(self, seconds: float) -> CompletedProcess[str]:
        """Wait for the end; one that does not come is a failure of the test."""
        self.process.join(seconds)
        status = self.poll()
        if status is None:
            self.kill()
        assert status is not None, f"still running after {seconds} s: {self.err.read_text()}"
        done = CompletedProcess([], status, self.out.read_text(), self.err.read_text())
        self.folder.cleanup()
        return done


def fork(
    program: str | Path, *arguments: object, environment: Mapping[str, str] | None = None, err: Path | None = None
) -> Forked:
    """Start `medtune`, or a script by its path, in this environment with some variables changed."""
    folder = TemporaryDirectory()
    out, err = Path(folder.name, "out"), err or Path(folder.name, "err")
    for file in (out, err):
        file.write_text("")
    argv = [str(program), *map(str, arguments)]
    process = _SERVER.Process(
        target=_become, args=(argv, {**os.environ, **(environment or {})}, os.getcwd(), out, err), daemon=True
    )
    process.start()
    return Forked(process, folder, out, err)


def _become(argv: list[str], environment: dict[str, str], folder: str, out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = argv
    if argv[0] == "medtune":
        runpy.run_module("medtune", run_name="__main__")
    else:
        sys.path.insert(0, str(Path(argv[0]).parent))
        runpy.run_path(argv[0], run_name="__main__")
