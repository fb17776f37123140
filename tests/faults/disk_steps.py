"""Several command lines in one process, which has the libraries once, with something done to the disk before each.

`python disk_steps.py FILE` reads a list of steps from a JSON file and writes over it how they ended. A step has
`arguments` and what comes first: `limit`, the largest size in bytes that a file may get, and `shell`, a command.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from medtune.__main__ import main

# Above every file of a test: the limit of a process can be raised again, but not beyond that of the system.
NO_LIMIT = resource.getrlimit(resource.RLIMIT_FSIZE)[1]


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
    file = Path(sys.argv[1])
    file.write_text(json.dumps([take(**step) for step in json.loads(file.read_text())]))
