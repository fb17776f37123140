"""`python -m medtune` and the `medtune` command."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TextIO

from medtune.errors import DiskError, MedtuneError
from medtune.runtime import interruption
from medtune.runtime.hardware import rank


def main() -> None:
    """Run the command line; what the user can mend is shown in one line a problem and exits with status 2."""
    _open_what_is_closed()
    try:
        with interruption.handled():
            _run()
    except interruption.Interrupted as stopped:
        _exit_interrupted(stopped)
    finally:
        from medtune.run_dir.lock import release_locks

        release_locks()


def _open_what_is_closed() -> None:
    """Give what is printed a place to go where the caller has closed it, as `>&-` does."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _run() -> None:
    from typer import Abort, TyperException

    from medtune.run_dir.lock import locked_folders
    from medtune.runtime.terminal import harmless
    from medtune.storage.disk_errors import describe_disk_error, quiet_threads, writing

    try:
        from medtune.cli import app

        with quiet_threads():
            status = app(prog_name="medtune", standalone_mode=False)
            interruption.raise_if_requested()
            with writing(Path("standard output")):
                sys.stdout.flush()
        sys.exit(status)
    except DiskError as error:
        _fail_on_disk(error)
    except MedtuneError as error:
        interruption.raise_if_requested()  # a library may make an error of it
        # Not splitlines: a name in a message may hold what only looks like the end of a line.
        _fail(*(f"medtune: {harmless(line)}" for line in str(error).split("\n") if line))
    except (KeyboardInterrupt, Abort):
        print("medtune: interrupted", file=sys.stderr)
        sys.exit(130)
    except TyperException as error:
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "medtune")
        # Without a command, the message is the whole help.
        end = "" if message.endswith("?") else ";"
        _fail(message if "\n" in message else f"medtune: {harmless(message)}{end} see `{command} --help`")
    except Exception as error:  # a library's own writing
        # Of an open file Python does not tell which.
        place = f"{next(iter(locked_folders()), 'the disk')}{'' if sys.stdout.isatty() else ', or where output goes'}"
        problem = describe_disk_error(error, elsewhere=place)
        if problem is None:
            raise
        _fail_on_disk(problem)


def _exit_interrupted(stopped: interruption.Interrupted) -> None:
    """Status 75 and the way on, or what a shell reports of a signal where nothing can go on."""
    command = _continuing_command()
    if rank() == 0:
        print(f"medtune: interrupted ({stopped})" + (f"; go on with `{command}`" if command else ""), file=sys.stderr)
    sys.exit(interruption.INTERRUPTED_STATUS if command else 128 + stopped.signal_number)


def _continuing_command() -> str | None:
    from medtune.run_dir.stages import continuing_command

    return continuing_command(sys.argv[1:])


def _fail_on_disk(problem: DiskError) -> None:
    command = _continuing_command()
    _fail(f"medtune: {problem}, then {f'go on with `{command}`' if command else 'try again'}")


def _fail(*lines: str) -> NoReturn:
    with suppress(OSError):  # where stderr goes to the full disk
        print(*lines, sep="\n", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if _is_stuck(stream):
            # What it still holds would fail once more as Python ends, and change the exit status.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(2)


def _is_stuck(stream: TextIO) -> bool:
    """Whether a stream holds what it cannot get rid of: it leads to a full disk."""
    try:
        stream.flush()
    except OSError:
        return True
    return False


if __name__ == "__main__":
    main()
