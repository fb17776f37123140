"""`python -m medtune` and the `medtune` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; what the user can mend is shown in one line and exits with status 2."""
    from medtune.errors import MedtuneError

    try:
        from medtune.cli import app

        app()
    except MedtuneError as error:
        for line in str(error).splitlines():
            print(f"medtune: {line}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
