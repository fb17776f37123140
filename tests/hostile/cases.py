"""What a case of hostile input is, and what has to hold for every one."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from command_line import Medtune, Result

Maker = Callable[[Path], object]
# Planted code leaves this file behind if it ever runs.
MARK = "planted-code-ran"


@dataclass(frozen=True)
class Refused:
    """Input that is refused: `lines` is all that the user sees, "medtune: " aside; "…" at an end stands for more."""

    what: str
    make: Maker
    command: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """Input that is legal: `then` says in words what becomes of it, which `check` proves."""

    what: str
    make: Maker
    command: str
    then: str
    check: Callable[[Result, Path], None]


def refused(what: str, make: Maker, command: str, *lines: str) -> Refused:
    return Refused(what, make, command, lines)


def parametrize(cases: Sequence[Refused | Kept]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.what for case in cases])


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below `folder` by its content; locks, which mean nothing, aside."""
    files = (path for path in folder.rglob("*") if path.name != ".lock" and (path.is_file() or path.is_symlink()))
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink() else _digest(path)
        for path in files
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        # What is as large as a bomb is compared by its size.
        large = path.stat().st_size > 1 << 26
        return str(path.stat().st_size) if large else hashlib.file_digest(file, "sha256").hexdigest()


def require_refused(case: Refused, medtune: Medtune, workspace: Path) -> None:
    """Status 2, one line a problem, no traceback, no planted code, and every file that was there as it was."""
    case.make(workspace)
    before = snapshot(workspace)
    result = medtune(*shlex.split(case.command))
    said = [line.removeprefix("medtune: ") for line in result.err.splitlines() if line.startswith("medtune: ")]
    assert "Traceback" not in result.err
    assert (result.status, result.out) == (2, ""), result
    assert len(said) == len(case.lines), said
    for line, expected in zip(said, case.lines, strict=True):
        assert matches(line, expected), f"{line!r} is not {expected!r}"
        assert line.isprintable()
    # The last thing on stderr: nothing follows the problems.
    assert result.err.splitlines()[-1].startswith("medtune: ")
    after = snapshot(workspace)
    assert {name: after.get(name) for name in before} == before
    assert MARK not in after


def require_kept(case: Kept, medtune: Medtune, workspace: Path) -> None:
    """Status 0, and what `check` looks at."""
    case.make(workspace)
    result = medtune(*shlex.split(case.command))
    assert result.status == 0, result.err
    assert "Traceback" not in result.err
    case.check(result, workspace)
    assert MARK not in snapshot(workspace)


def matches(line: str, expected: str) -> bool:
    """Whether `line` reads as expected, where "…" stands for anything. A line's own "…" matches it too."""
    return re.fullmatch(".*".join(map(re.escape, expected.split("…"))), line) is not None
