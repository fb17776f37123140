"""The files of a large source: whether they can be streamed, their columns, and the pieces that they are read in."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.config.schema import DataSection
from medtune.data.columns import column_names, find_columns
from medtune.data.conversations import read_conversations
from medtune.data.exam_rows import read_exam_rows
from medtune.data.table_files import MAX_TABLE_BYTES, MAX_TABLE_ROWS, TABLE_SUFFIXES
from medtune.data.tables.json_files import read_lines
from medtune.data.tables.saved_data_set import is_saved_data_set
from medtune.errors import DataError, Option, first_line
from medtune.storage.row_tables import parquet_size

SUFFIXES = (".parquet", ".jsonl")
# Bytes of JSONL that are read at once, and rows of Parquet.
PIECE_BYTES, BATCH_ROWS = 8 << 20, 4096
# Rows that the columns of a file are read off.
_LOOKED_AT = 1000
_IN_MEMORY = ("read it whole, in memory, with ", Option("set", "data.stream=false"))


@dataclass(frozen=True, slots=True)
class SourcePiece:
    """A part of a file that one process reads: of JSONL the bytes from `start` to `stop`, of Parquet a row group.

    `first` is the place of its first row in the file, and of JSONL its first line.
    """

    path: str
    start: int
    stop: int
    first: int
    rows: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file with its columns by field, those that are there, and what was found."""

    path: Path
    names: Mapping[str, str | None]
    present: tuple[str, ...]
    note: str


def streamed_files(data: DataSection) -> list[Path]:
    """The files of the source if it is to be streamed, else none.

    Raises DataError if the configuration asks for it and the source cannot be.
    """
    found = _files(Path(data.source)) if not data.sources else []
    if data.stream is False or (data.stream == "auto" and (not found or not _is_large(found))):
        return []
    problem = ""
    if not found:
        problem = "only Parquet and JSONL files, and folders of these, are streamed"
    elif data.test_source is not None:
        problem = "with data.test_source, rows are not streamed"
    if problem:
        raise DataError(data.named, problem, _IN_MEMORY)
    return found


def _files(source: Path) -> list[Path]:
    if os.path.isfile(source):
        return [source] if source.name.lower().endswith(SUFFIXES) else []
    if not os.path.isdir(source) or is_saved_data_set(source):
        return []
    tables = [
        path
        for path in sorted(source.rglob("*"))
        if path.name.lower().endswith(TABLE_SUFFIXES)
        and path.is_file()
        and not any(name.startswith(".") for name in path.relative_to(source).parts)
    ]
    return tables if all(path.name.lower().endswith(SUFFIXES) for path in tables) else []


def _is_large(files: list[Path]) -> bool:
    """Whether reading them in memory is refused, or would be once they are unpacked."""
    if sum(path.stat().st_size for path in files) > MAX_TABLE_BYTES:
        return True
    if not (packed := list(filter(is_parquet, files))):
        return False
    import pyarrow as pa

    try:
        sizes = list(map(parquet_size, packed))
    except (pa.ArrowException, OSError, ValueError):
        return False  # reading it says why
    size, rows = sum(size for _, size in sizes), sum(rows for rows, _ in sizes)
    return size > MAX_TABLE_BYTES or rows > MAX_TABLE_ROWS


def open_file(path: Path, data: DataSection) -> SourceFile:
    """A file with its columns. Raises DataError if they cannot be found, or hold what is not streamed."""
    records, present = _first_records(path)
    origin = str(path)
    if not records:
        return SourceFile(path, {}, (), "")
    for kind, shaped in (
        ("conversations", read_conversations(records, data.columns, origin)),
        ("exam questions", read_exam_rows(records, data.columns)),
    ):
        if shaped is not None:
            raise DataError(path, f"{kind} are not streamed", ("give questions and answers, or ", *_IN_MEMORY))
    found = find_columns(present, data.columns, origin)
    return SourceFile(path, found.names, tuple(present), found.note)


def _first_records(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    if not is_parquet(path):
        with path.open("rb") as file:
            head = file.read(PIECE_BYTES)
            lines = head.splitlines(keepends=True)[:_LOOKED_AT]
            # The last one may be cut.
            lines = lines[:-1] if len(head) == PIECE_BYTES and len(lines) < _LOOKED_AT and len(lines) > 1 else lines
        text = decode_lines(path, b"".join(lines))
        if text.lstrip().startswith("["):
            raise DataError(path, "one array is not streamed", "write one object a line")
        records = list(read_lines(str(path), text))
        return records, column_names(records)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            first = next(file.iter_batches(batch_size=_LOOKED_AT), None)
            records = [] if first is None else first.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise damaged(path, error) from None
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(path, f"two columns are called {twice[0]}", "give each column a name of its own")
    return records, column_names([dict.fromkeys(names)])


def pieces_of(path: Path) -> Iterator[SourcePiece]:
    """The pieces of a file, in order. Raises DataError."""
    if is_parquet(path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            described = pq.read_metadata(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(path, error) from None
        first = 0
        for place in range(described.num_row_groups):
            rows = described.row_group(place).num_rows
            yield SourcePiece(str(path), place, place + 1, first, rows)
            first += rows
        return
    start = line = 0
    with path.open("rb") as file:
        while block := file.read(PIECE_BYTES):
            block += file.readline()
            rows = block.count(b"\n") + (not block.endswith(b"\n"))
            yield SourcePiece(str(path), start, start + len(block), line, rows)
            start, line = start + len(block), line + rows


def decode_lines(path: Path, data: bytes) -> str:
    """Lines of JSONL as text. Raises DataError if they are not UTF-8."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 text ({error.reason}), which large files must be"
        raise DataError(path, problem, "write it again as UTF-8") from None


def damaged(path: Path | str, error: Exception) -> DataError:
    """That a Parquet file cannot be read."""
    return DataError(path, f"not a readable Parquet file ({first_line(error)})", "fetch or write it again")


def is_parquet(path: Path) -> bool:
    """Whether the file is Parquet, by its name; else it is JSONL."""
    return path.name.lower().endswith(".parquet")
