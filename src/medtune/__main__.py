"""`python -m medtune` and the `medtune` command."""

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TextIO

from medtune.errors import DiskError, MedtuneError, Option
from medtune.runtime import interruption
from medtune.runtime.distributed import PeerEnded
from medtune.runtime.launch import is_main, wait_for_words
from medtune.runtime.progress import EVENTS


def main() -> None:
    """Run the command line. A problem that the user can fix is shown in one line, and exits with status 2."""
    _open_what_is_closed()
    try:
        with interruption.handled():  # while libraries load, too
            _run()
    except interruption.Interrupted as stopped:
        _exit_interrupted(stopped)
    except PeerEnded as ended:
        if ended.status == interruption.INTERRUPTED_STATUS:
            _exit_interrupted(interruption.Interrupted(signal.SIGTERM))
        _fail(*_lines(ended.line), status=ended.status)


def _open_what_is_closed() -> None:
    """Open the null device in place of a stream that the caller has closed, as `>&-` does."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _run() -> None:
    from typer import Abort, TyperException

    from medtune.pipeline.edge import process_edge
    from medtune.runtime.terminal import harmless
    from medtune.storage.disk_errors import writing

    try:
        with process_edge(own_process=True):
            from medtune.cli import app

            status = app(prog_name="medtune", standalone_mode=False)
            interruption.raise_if_requested()
            with writing(Path("standard output")):
                sys.stdout.flush()
        sys.exit(status)
    except DiskError as error:
        _fail_on_disk(error)
    except MedtuneError as error:
        _fail(*_lines(_said(error)))
    except (KeyboardInterrupt, Abort):
        print("medtune: interrupted", file=sys.stderr)
        sys.exit(130)
    except TyperException as error:
        message = _key_instead(error) or str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "medtune")
        # Without a command, the message is the whole help.
        end = "" if message.endswith("?") else ";"
        _fail(message if "\n" in message else f"medtune: {harmless(message)}{end} see `{command} --help`")


def _said(error: MedtuneError) -> str:
    """Its text; in words of Python where a call has started this process, and shows what it prints."""
    if os.environ.get(EVENTS):
        from medtune.api.working import as_call

        error.spelling = as_call
    return str(error)


def _key_instead(error: Exception) -> str | None:
    """What to say of an unknown option that is a key of the configuration, to a command that takes overrides."""
    from medtune.config.schema import Config
    from medtune.config.suggestions import keys_for_option

    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if option is None or context is None or all(one.name != "overrides" for one in context.command.params):
        return None
    keys = [str(Option("set", f"{key}=…")) for key in keys_for_option(Config, option)]
    return f"No such option: {option}; did you mean {' or '.join(keys)}?" if keys else None


def _lines(text: str) -> list[str]:
    from medtune.runtime.terminal import harmless

    # Not splitlines: a name in a message may hold what only looks like the end of a line.
    return [f"medtune: {harmless(line)}" for line in text.split("\n") if line]


def _exit_interrupted(stopped: interruption.Interrupted) -> None:
    """Exit with status 75 and the command that resumes, or with a shell's status for a signal if none does."""
    command = _continuing_command()
    if is_main():
        print(
            _shown(f"medtune: interrupted ({stopped})" + (f"; go on with `{command}`" if command else "")),
            file=sys.stderr,
        )
    wait_for_words()
    sys.exit(interruption.INTERRUPTED_STATUS if command else 128 + stopped.signal_number)


def _continuing_command() -> str | None:
    from medtune.run_dir.layout import continuing_command

    return continuing_command(sys.argv[1:])


def _fail_on_disk(problem: DiskError) -> None:
    command = _continuing_command()
    way_on = f"go on with `{command}`" if command else "try again"
    if os.environ.get(EVENTS):  # whose recipe was a temporary file
        way_on = "go on with resume=True"
    _fail(f"medtune: {_said(problem)}, then {way_on}")


def _shown(line: str) -> str:
    """`line`, wrapped at words in a terminal; a file or a pipe gets it whole, for searches, and help has its lines."""
    from medtune.runtime.terminal import wrapped

    return line if "\n" in line or not sys.stderr.isatty() else wrapped(line, shutil.get_terminal_size().columns)


def _fail(*lines: str, status: int = 2) -> NoReturn:
    if is_main():
        with suppress(OSError):  # where stderr goes to the full disk
            print(*map(_shown, lines), sep="\n", file=sys.stderr)
    wait_for_words()
    for stream in (sys.stdout, sys.stderr):
        if _is_stuck(stream):
            # Its content would fail again as Python ends, and change the exit status.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(status)


def _is_stuck(stream: TextIO) -> bool:
    """Whether a stream cannot write what it holds: it leads to a full disk."""
    try:
        stream.flush()
    except OSError:
        return True
    return False


if __name__ == "__main__":
    main()
