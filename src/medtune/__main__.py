"""`python -m medtune` and the `medtune` command."""

from __future__ import annotations

import os
import sys

from medtune import interruption


def main() -> None:
    """Run the command line; what the user can mend is shown in one line a problem and exits with status 2."""
    try:
        with interruption.handled():
            _run()
    except interruption.Interrupted as stopped:
        _exit_interrupted(stopped)
    finally:
        from medtune.run_lock import release_locks

        release_locks()


def _run() -> None:
    from typer import Abort, TyperException

    from medtune.errors import MedtuneError
    from medtune.terminal import harmless

    try:
        from medtune.cli import app

        status = app(standalone_mode=False)
        interruption.raise_if_requested()
        sys.exit(status)
    except MedtuneError as error:
        interruption.raise_if_requested()  # a library may make an error of it
        # Not splitlines: a name in a message may hold what only looks like the end of a line.
        _fail(*(f"medtune: {harmless(line)}" for line in str(error).split("\n") if line))
    except (KeyboardInterrupt, Abort):
        print("medtune: interrupted", file=sys.stderr)
        sys.exit(130)
    except TyperException as error:
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        # Without a command, the message is the whole help.
        _fail(message if "\n" in message else f"medtune: {harmless(message)}; see `medtune --help`")


def _exit_interrupted(stopped: interruption.Interrupted) -> None:
    """Status 75 and the way on, or what a shell reports of a signal where nothing can go on."""
    command = interruption.way_on(sys.argv[1:])
    if os.environ.get("RANK", "0") == "0":
        print(f"medtune: interrupted ({stopped})" + (f"; go on with `{command}`" if command else ""), file=sys.stderr)
    sys.exit(interruption.INTERRUPTED_STATUS if command else 128 + stopped.signal_number)


def _fail(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
