"""vLLM's program: found, started as a child, waited for, and ended."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import IO

from medtune.errors import ConfigError, ModelError, Text
from medtune.runtime.interruption import Interrupted
from medtune.runtime.progress import say

# Not keys of a recipe: whoever wrote a recipe must not choose what runs on the machine of whoever reads it.
PROGRAM_VARIABLE = "MEDTUNE_VLLM"
ARGUMENTS_VARIABLE = "MEDTUNE_VLLM_ARGUMENTS"
# A proxy that the environment names has no way to this machine's own ports.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# Large weights are read, kernels compiled and graphs captured before the first answer.
START_SECONDS = 1800.0
_VERSION_SECONDS = 300
_LOOK_SECONDS = 0.1
_TAIL_LINES = 40
# The first of these in the log is the cause; those after it say that something else failed because of it.
_CAUSE = re.compile(r"\b\w*(?:Error|Exception): \S.*")


def find_program(named: str | None, what: Text, fix: Text) -> str:
    """The path of vLLM's command: `named`, or by the environment, or on the PATH. Raises ConfigError."""
    wanted = named or os.environ.get(PROGRAM_VARIABLE) or "vllm"
    found = shutil.which(wanted)
    if found is None:
        raise ConfigError(what, f"there is no program {wanted}", fix)
    return found


def more_arguments() -> list[str]:
    """What the user wants `vllm serve` to be called with besides. Raises ConfigError."""
    text = os.environ.get(ARGUMENTS_VARIABLE, "")
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(ARGUMENTS_VARIABLE, str(error), "quote it as a shell would have it") from None


def version_of(program: str) -> str:
    """The version that vLLM's command says it has. Raises ModelError if the command fails."""
    try:
        asked = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=_VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(program, f"does not tell its version ({error})") from None
    words = asked.stdout.split()
    if asked.returncode or not words:
        raise ModelError(program, f"does not tell its version ({_cause(asked.stderr) or 'no word of it'})")
    return words[-1]


def environment(key: str | None) -> dict[str, str]:
    """The child's environment. The key is no argument, which every user of the machine could read."""
    own = {**os.environ, "VLLM_NO_USAGE_STATS": "1"}
    return own if key is None else {**own, "VLLM_API_KEY": key}


@contextmanager
def running(
    command: Sequence[str], variables: Mapping[str, str], grace: float, *, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """vLLM as a child, which ends with this block: by the signal that ended it, and by force after `grace` seconds.

    `output` gets what it writes. In a process group of its own: a terminal's Ctrl-C would reach it twice.
    """
    errors = None if output is None else subprocess.STDOUT
    with subprocess.Popen(command, env=variables, stdout=output, stderr=errors, process_group=0) as child:
        by = signal.SIGTERM
        try:
            yield child
        except Interrupted as stopped:
            by = signal.Signals(stopped.signal_number)
            raise
        finally:
            _end(child, by, grace)


def _end(child: subprocess.Popen[bytes], by: signal.Signals, grace: float) -> None:
    if child.poll() is not None:
        return
    child.send_signal(by)
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):  # its workers hold the GPU's memory, and would outlive it
            os.killpg(child.pid, signal.SIGKILL)


def wait_until_healthy(child: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    """Until the server at `url` says that it is ready. Raises ModelError, with the reason in `log`, if it never is."""
    ends = time.monotonic() + START_SECONDS
    while not _is_healthy(url):
        if child.poll() is None and time.monotonic() < ends:
            time.sleep(_LOOK_SECONDS)
            continue
        raise failure(child, log)


def failure(child: subprocess.Popen[bytes], log: IO[bytes]) -> ModelError:
    """What has become of the child, and why by its `log`, whose last lines are shown."""
    log.seek(0)
    text = log.read().decode("utf-8", errors="replace")
    say("\n".join(["vLLM's last lines:", *text.splitlines()[-_TAIL_LINES:]]), verbatim=True)
    how = "does not answer" if child.poll() is None else f"ended with status {child.returncode}"
    fix = f"give `vllm serve` other arguments in {ARGUMENTS_VARIABLE}, or leave out generation.engine"
    return ModelError("vLLM", f"{how}: {_cause(text) or 'it gave no reason'}", fix)


def _is_healthy(url: str) -> bool:
    try:
        with DIRECTLY.open(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):  # URLError and HTTPError are OSErrors
        return False


def _cause(text: str) -> str:
    """What a log gives as the reason, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = next((match[0] for line in lines if (match := _CAUSE.search(line))), lines[-1] if lines else "")
    return found[:300]
