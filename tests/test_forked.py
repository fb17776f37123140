"""A forked program ends as one that was started afresh does."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from forked import UNCONNECTED, fork
from medtune import __version__


def test_a_command() -> None:
    done = fork("medtune", "--version", imported=UNCONNECTED).finish()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("code", "status", "out", "err"),
    [
        ("import os, sys; print(*sys.argv[1:], os.getcwd(), os.environ['A'])", 0, "x {folder} b\n", ""),
        ("import sys; sys.exit(3)", 3, "", ""),
        ("import sys; sys.exit('no')", 1, "", "no\n"),
        ("import atexit; atexit.register(print, 'last')", 0, "last\n", ""),
        ("import os, time; os.kill(os.getpid(), 15); time.sleep(60)", -signal.SIGTERM, "", ""),
        ("import signal; print(signal.getsignal(2).__name__, signal.getsignal(17))", 0,
         f"default_int_handler {signal.Handlers.SIG_DFL}\n", ""),
        ("import sys; print('torch' in sys.modules, 'huggingface_hub' in sys.modules)", 0, "True False\n", ""),
    ],
)  # fmt: skip
def test_a_script(tmp_path: Path, code: str, status: int, out: str, err: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    done = fork(script, "x", environment={"A": "b"}, cwd=tmp_path, imported=UNCONNECTED).finish()
    assert (done.returncode, done.stdout, done.stderr) == (status, out.replace("{folder}", str(tmp_path)), err)


def test_a_signal_by_its_pid(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time; time.sleep(60)")
    process = fork(script, imported=UNCONNECTED)
    assert process.poll() is None
    process.kill()
    assert process.finish(30).returncode == -signal.SIGKILL
