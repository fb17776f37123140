"""`python -m medtune` and the `medtune` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; what the user can mend is shown in one line a problem and exits with status 2."""
    from typer import Abort, TyperException

    from medtune.errors import MedtuneError

    try:
        from medtune.cli import app

        sys.exit(app(standalone_mode=False))
    except MedtuneError as error:
        _fail(*(f"medtune: {line}" for line in str(error).splitlines()))
    except (KeyboardInterrupt, Abort):
        print("medtune: interrupted; `--resume` goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except TyperException as error:
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        # Without a command, the message is the whole help.
        _fail(message if "\n" in message else f"medtune: {message}; see `medtune --help`")


def _fail(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
