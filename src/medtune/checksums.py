"""Sizes and checksums of files: what tells a whole one from one that was cut off or edited."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FileRecord:
    """What tells a file from another of its name."""

    bytes: int
    sha256: str


def describe_file(file: Path) -> dict[str, Any]:
    """`bytes` and `sha256` of a file. One that has not changed since is not read again by this process."""
    found = file.stat()
    return {
        "bytes": found.st_size,
        "sha256": _checksum(file.absolute(), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
    }


def difference(file: Path, described: Mapping[str, Any]) -> str | None:
    """How a file differs from what `describe_file` said of it, as the end of a sentence; None if it does not."""
    if not file.is_file():
        return "is missing"
    size, expected = file.stat().st_size, described["bytes"]
    if size != expected:
        return f"has {size:,} of {expected:,} bytes" if size < expected else f"has {size:,} bytes, not {expected:,}"
    return None if describe_file(file)["sha256"] == described["sha256"] else "is not as it was written"


@cache
def _checksum(file: Path, *version: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
