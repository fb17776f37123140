"""Files that anyone may have edited: read within bounds, and checked as they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from medtune.errors import MedtuneError, first_line

_T = TypeVar("_T")
# Settings of an adapter, a seal, a trainer's state: kilobytes, or a few megabytes after a million steps.
MAX_SETTINGS_BYTES = 1 << 26


@dataclass(frozen=True)
class FileRecord:
    """What tells a file from another of its name."""

    bytes: int
    sha256: str


class DamagedError(MedtuneError):
    """A file is not what it should be; the text says why in a few words, for the caller's own message."""


# Building one takes far longer than a check by it, and predictions are checked a line at a time.
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_text(path: Path, limit: int = MAX_SETTINGS_BYTES) -> str:
    """UTF-8 text of at most `limit` bytes. Raises DamagedError, and FileNotFoundError."""
    try:
        # Not by its size alone: of a device or a pipe that is 0.
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(f"cannot be read, {error.strerror}") from None
    if len(data) > limit:
        raise DamagedError(f"larger than {limit:,} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedError(f"not UTF-8 text, {error.reason} at byte {error.start}") from None


def parse_json(text: str) -> Any:
    """The value of `text` as JSON. Raises DamagedError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DamagedError(f"not JSON ({error.msg})") from None
    except (ValueError, RecursionError):  # ValueError alone: an integer of more than 4,300 digits
        raise DamagedError("not JSON (a number too long, or nested too deeply)") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON object. Raises DamagedError, and FileNotFoundError."""
    values = parse_json(read_text(path))
    if not isinstance(values, dict):
        raise DamagedError(f"a {type(values).__name__}, not an object")
    return values


def check_type(kind: type[_T], values: Any) -> _T:
    """`values` as a `kind`, such as `list[Prediction]`. Raises DamagedError, naming the first that does not fit."""
    try:
        checked: _T = _adapter(kind).validate_python(values)
        return checked
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        # A union reports the member's type, or a key that is wrong, as a part of the path.
        place = ".".join(part for part in map(str, problem["loc"]) if "[" not in part and part not in _TYPE_NAMES)
        message = f"{problem['msg'][0].lower()}{problem['msg'][1:]}"
        raise DamagedError(f"{place}: {message}" if place else message) from None
    except RecursionError as error:
        raise DamagedError(first_line(error)) from None


_TYPE_NAMES = {"str", "bool", "int", "float"}


def read_parquet(path: Path, max_rows: int, max_bytes: int) -> list[dict[str, Any]]:
    """Every row of a Parquet file. Raises DamagedError for one that cannot be read, or is too large once unpacked.

    A column that repeats one value a billion times takes a few kilobytes on disk, so neither the file's size nor the
    size it declares is enough.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches: list[pa.RecordBatch] = []
    size = 0
    try:
        with pq.ParquetFile(path) as file:
            _require_at_most(file.metadata.num_rows, max_rows, "rows")
            names = file.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise DamagedError(f"two columns are called {twice[0]}")
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                # A dictionary counts in full, since every row gets its own copy of a value.
                columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
                # A column that takes no bytes there, such as one of nulls, takes an entry in every row.
                size += sum(max(column.nbytes, _CELL_BYTES * batch.num_rows) for column in columns)
                _require_at_most(size, max_bytes, "bytes")
                batches.append(batch)
            return [row for batch in batches for row in batch.to_pylist()]
    # Beyond arrow's own: text that is not UTF-8, a date that Python cannot represent.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DamagedError(first_line(error)) from None


_PARQUET_BATCH_ROWS = 1024
_CELL_BYTES = 16


def _require_at_most(found: int, limit: int, what: str) -> None:
    if found > limit:
        raise DamagedError(f"more than {limit:,} {what}")


def describe_file(file: Path) -> dict[str, Any]:
    """`bytes` and `sha256` of a file. One that has not changed since is not read again by this process."""
    found = file.stat()
    return {
        "bytes": found.st_size,
        "sha256": _checksum(file.absolute(), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
    }


def difference(file: Path, described: Mapping[str, Any]) -> str | None:
    """How a file differs from its description by `describe_file`, as the end of a sentence; None if it does not."""
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
