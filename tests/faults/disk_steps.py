"""Several command lines in one process, which has the libraries once, with something done to the disk before each.

`disk_steps.py FILE` reads a list of steps from a JSON file and writes over it how they ended. A step has `arguments`
and what comes first: `limit`, the largest size in bytes that a file may get, and `shell`, a command. With `--mounting`
the process may mount file systems, which nobody else sees.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from medtune.__main__ import main

# Above every file of a test: the limit of a process can be raised again, but not beyond that of the system.
NO_LIMIT = resource.getrlimit(resource.RLIMIT_FSIZE)[1]


# Of Linux's sched.h; Python has `os.unshare` from 3.12 on.
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def allow_mounting() -> None:
    """What `unshare -rm` does, of a process that runs already: root in namespaces of users and mounts of its own."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def take(arguments: list[str], limit: int | None = None, shell: str | None = None) -> dict[str, object]:
    """One step: the command's exit status and what it said on stderr."""
    if shell is not None:
        subprocess.run(shell, shell=True, check=True)
    said = io.StringIO()
    sys.argv = ["medtune", *arguments]
    resource.setrlimit(resource.RLIMIT_FSIZE, (NO_LIMIT if limit is None else limit, NO_LIMIT))
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            main()
    except SystemExit as ended:
        return {"status": ended.code or 0, "errors": said.getvalue()}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
    raise AssertionError("main returned")


if __name__ == "__main__":
    file, options = Path(sys.argv[1]), sys.argv[2:]
    if options == ["--mounting"]:
        allow_mounting()
    file.write_text(json.dumps([take(**step) for step in json.loads(file.read_text())]))
