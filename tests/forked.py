"""Real processes without the seconds that imports take: forked from a server that has imported the libraries once.

They have a pid, take real signals, and end as an interpreter does, with its exit status. What measures a fresh
interpreter starts one.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

SOURCES = Path(__file__).resolve().parents[1] / "src"
# What does not read the Hub's settings, which huggingface_hub does when it is imported; then everything.
UNCONNECTED = (
    "torch.distributed.tensor", "torch.utils.checkpoint", "bitsandbytes", "pandas",
    "pyarrow.dataset", "pyarrow.parquet", "scipy.sparse.csgraph", "sklearn.metrics", "matplotlib.backends.backend_svg",
    "matplotlib.pyplot", "rouge_score.rouge_scorer", "sacrebleu", "rich.progress", "multiprocess",
)  # fmt: skip
EVERYTHING = (
    *UNCONNECTED, "medtune.api", "medtune.cli", "medtune.evaluation.ending", "medtune.inference.predictions",
    "medtune.inference.decoders.static", "medtune.pipeline.run", "medtune.publishing.report.page",
    "medtune.training.sft", "peft.tuners.lora.bnb", "transformers.integrations.bitsandbytes",
    "transformers.models.llama.modeling_llama",
)  # fmt: skip


_ASKING = threading.Lock()


@dataclass(frozen=True)
class Forked:
    """A process, the folder that tells of its end, and the files that its output goes to."""

    pid: int
    folder: Path
    out: Path
    err: Path

    def poll(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        file = self.folder / "status"
        return int(file.read_text()) if file.is_file() else None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def finish(self, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """Wait for the end; one that does not come is a failure of the test."""
        if not _appears(self.folder / "status", seconds):
            self.kill()
            raise AssertionError(f"still running after {seconds} s: {self.err.read_text()}")
        status = self.poll()
        assert status is not None
        done = subprocess.CompletedProcess([], status, self.out.read_text(), self.err.read_text())
        shutil.rmtree(self.folder)
        return done


def fork(
    program: str | Path,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    err: Path | None = None,
    imported: tuple[str, ...] = EVERYTHING,
) -> Forked:
    """Start a module, or a script by its path, in an environment of its own or else in this one."""
    folder = Path(mkdtemp())
    out, err = folder / "out", err or folder / "err"
    request = {
        "argv": [str(program), *map(str, arguments)],
        "environment": dict(os.environ if environment is None else environment),
        "cwd": str(cwd or Path.cwd()),
        "out": str(out),
        "err": str(err),
        "folder": str(folder),
    }
    for file in (out, err):
        file.write_text("")
    with _ASKING:
        requests = _server(imported).stdin
        assert requests is not None
        requests.write(json.dumps(request) + "\n")
        requests.flush()
    file = folder / "pid"
    assert _appears(file, 300), "the server does not answer"
    return Forked(int(file.read_text()), folder, out, err)


@functools.cache
def _server(imported: tuple[str, ...]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    command = [sys.executable, __file__, *imported]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment)
    atexit.register(server.communicate)
    return server


def _appears(file: Path, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not file.is_file():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _write(file: Path, number: int) -> None:
    part = file.with_suffix(".part")
    part.write_text(str(number))
    part.rename(file)


# In the server, which imports and never computes, so that no fork loses a thread of torch. ---------------------------


def _serve() -> dict[str, Any]:
    """Fork for every request; returns in the process that is to answer it."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        if os.fork() == 0:  # a process that waits for the one asked for, so that the server need not
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            pid = os.fork()
            if pid == 0:
                return request
            _write(Path(request["folder"], "pid"), pid)
            _, status = os.waitpid(pid, 0)
            _write(Path(request["folder"], "status"), os.waitstatus_to_exitcode(status))
            os._exit(0)
    os._exit(0)


def _become(request: dict[str, Any]) -> None:
    """Be the program that was asked for, to the end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a server in the background has ignored
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in ((1, request["out"]), (2, request["err"])):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = request["argv"]
    program = sys.argv[0]
    sys.path[0] = str(Path(program).parent) if program.endswith(".py") else request["cwd"]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    import_module("medtune.runtime.light_imports").import_lightly()
    for name in sys.argv[1:]:
        import_module(name)
    if "medtune.publishing.report.page" in sys.modules:  # whose template is compiled once for all
        formatting = import_module("medtune.evaluation.formatting")
        formatting.read_template(files("medtune.publishing.report") / "assets/report.html.jinja", autoescape=True)
    gc.collect()
    gc.freeze()  # so that no collection in a child walks through them, nor copies their pages
    _become(_serve())
