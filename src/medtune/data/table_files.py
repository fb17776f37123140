"""Tables of rows on disk: CSV, JSONL and Parquet, read within bounds."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medtune.errors import DataError, first_line
from medtune.storage.reading import DamagedError, parse_json, read_parquet

TABLE_SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
# MedQuAD takes 22 MB. A far larger file is no table of questions and answers, and would fill the memory.
MAX_TABLE_BYTES = 1 << 30
MAX_TABLE_ROWS = 10_000_000
# A long answer of MedQuAD has 30,000. Far beyond that a row is a whole file that lost its quotes, and metrics that take
# quadratic time would not end.
MAX_TEXT_CHARACTERS = 1_000_000
# gzip packs text to a tenth, and nothing to less than a thousandth: a file beyond this is made to fill the memory.
MAX_GZIP_RATIO = 100
COLUMNS_SHOWN = 20
_RATIO_COUNTS_FROM = 1 << 26
_CHUNK = 1 << 20


def read_table(path: Path) -> Iterable[Mapping[str, Any]]:
    """Records of a CSV, JSONL or Parquet file. Raises DataError, in one line, if it cannot be read."""
    name = path.name.lower()
    if not name.endswith(TABLE_SUFFIXES):
        raise unknown_kind(path)
    try:
        size = path.stat().st_size
        if size > MAX_TABLE_BYTES:
            raise DataError(path, f"larger than {MAX_TABLE_BYTES:,} bytes", "split it, or leave out what is not needed")
        if name.endswith(".parquet"):
            return read_parquet(path, MAX_TABLE_ROWS, MAX_TABLE_BYTES)
        data = _unpack(path, size) if name.endswith(".gz") else path.read_bytes()
    except DamagedError as error:
        raise DataError(path, f"not a readable Parquet file ({error})", "fetch or write it again") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file and its permissions") from None
    if name.removesuffix(".gz").endswith(".csv"):
        return _read_csv(str(path), data)
    return read_jsonl(str(path), data)


def unknown_kind(path: Path) -> DataError:
    """That no reader knows a file of this name."""
    fix = f"medtune reads {', '.join(TABLE_SUFFIXES)} and folders of MedQuAD XML"
    return DataError(path, "unknown kind of file", fix)


def read_jsonl(origin: str, data: bytes) -> Iterator[dict[str, Any]]:
    """Objects of `data`, one a line. Raises DataError, naming `origin` and the line."""
    for number, line in enumerate(_decode(origin, data).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except DamagedError as error:
            raise DataError(origin, f"line {number} is {error}", "one object a line is needed") from None
        if not isinstance(row, dict):
            raise DataError(origin, f"line {number} is a {type(row).__name__}", "one object a line is needed")
        yield row


def _unpack(path: Path, packed: int) -> bytes:
    unpacked = io.BytesIO()
    try:
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                unpacked.write(chunk)
                size = unpacked.tell()
                if size > MAX_TABLE_BYTES:
                    raise DataError(path, f"unpacks to more than {MAX_TABLE_BYTES:,} bytes", "split it")
                if size > _RATIO_COUNTS_FROM and size > MAX_GZIP_RATIO * packed:
                    problem = f"unpacks to more than {MAX_GZIP_RATIO} times its size, which no text does"
                    raise DataError(path, problem, "if it is sound, unpack it and give that file")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(path, f"not a whole gzip file ({error})", "fetch or compress it again") from None
    return unpacked.getvalue()


def _decode(origin: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(origin, f"not UTF-8 text ({error.reason} at byte {error.start})", "save it as UTF-8") from None


def _read_csv(origin: str, data: bytes) -> list[dict[str, Any]]:
    import pandas as pd

    try:
        # All cells as text, and "NA" or "null" are words, not gaps.
        frame = pd.read_csv(io.StringIO(_decode(origin, data)), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        fix = "check its header and quotes"
        raise DataError(origin, f"not a readable CSV file ({first_line(error)})", fix) from None
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas reads surplus leading cells as row labels, which would shift every column by one.
        raise DataError(origin, "its first row has more cells than its header", "check its header and quotes")
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def require_text_size(text: str, where: str) -> str:
    """`text` itself. Raises DataError, which begins with `where`, if it is longer than any answer."""
    if len(text) > MAX_TEXT_CHARACTERS:
        fix = "shorten it, or leave the row out"
        raise DataError(f"{where} has {len(text):,} characters, more than {MAX_TEXT_CHARACTERS:,}", fix=fix)
    return text


def require_characters(text: str, where: str) -> str:
    """`text` itself. Raises DataError, which begins with `where`, if it holds half of a surrogate pair.

    JSON can spell one (`\\ud83d`), and no tokenizer or file takes it.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"holds half of a surrogate pair ({text[error.start]!r}), which is no character"
        raise DataError(f"{where} {problem}", fix="replace or leave out that character") from None
    return text


def show_column(name: str) -> str:
    """A column's name for a message, shortened: it may be as long as a file, and contain anything."""
    name = name if len(name) <= 60 else f"{name[:60]}…"
    return name if name.isprintable() else repr(name)
