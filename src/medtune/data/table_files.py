"""Tables of rows on disk: CSV, TSV, JSONL, JSON, Parquet and Excel, read within bounds."""

import gzip
import io
import zlib
from pathlib import Path

from medtune.config.sources import AS_FOUND, TableSection
from medtune.data.tables.json_files import read_json, read_json_lines
from medtune.data.tables.separated import read_separated
from medtune.data.tables.table import ReadTable
from medtune.data.tables.text import decode
from medtune.data.tables.workbook import read_workbook
from medtune.errors import DataError
from medtune.storage.reading import DamagedError, read_parquet

TABLE_SUFFIXES = (
    ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".xlsx",
)  # fmt: skip
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


def read_table(path: Path, settings: TableSection = AS_FOUND) -> ReadTable:
    """The table in a file. Raises DataError, in one line, if it cannot be read."""
    name = path.name.lower()
    if not name.endswith(TABLE_SUFFIXES):
        raise unknown_kind(path)
    try:
        size = path.stat().st_size
        if size > MAX_TABLE_BYTES:
            raise DataError(path, f"larger than {MAX_TABLE_BYTES:,} bytes", "split it, or leave out what is not needed")
        if name.endswith(".parquet"):
            return ReadTable(read_parquet(path, MAX_TABLE_ROWS, MAX_TABLE_BYTES))
        if name.endswith(".xlsx"):
            return read_workbook(path, settings.sheet, MAX_TABLE_ROWS, MAX_TABLE_BYTES)
        data = _unpack(path, size) if name.endswith(".gz") else path.read_bytes()
    except DamagedError as error:
        raise DataError(path, f"not a readable Parquet file ({error})", "fetch or write it again") from None
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file and its permissions") from None
    table, encoding = _read_text(path, name.removesuffix(".gz"), data, settings)
    return ReadTable(table.rows, (*encoding, *table.notes), table.narrow, table.wide)


def _read_text(path: Path, name: str, data: bytes, settings: TableSection) -> tuple[ReadTable, tuple[str, ...]]:
    origin = str(path)
    text, encoding = decode(origin, data, settings.encoding)
    if name.endswith(".json"):
        return read_json(origin, text), encoding
    if name.endswith(".jsonl"):
        return read_json_lines(origin, text), encoding
    usual = "\t" if name.endswith(".tsv") else ","
    table = read_separated(origin, text, usual=usual, separator=settings.separator, quotes=settings.quotes)
    return table, encoding


def unknown_kind(path: Path) -> DataError:
    """That no reader knows a file of this name."""
    fix = f"medtune reads {', '.join(TABLE_SUFFIXES)}, folders of these, of MedQuAD XML and of save_to_disk"
    return DataError(path, "unknown kind of file", fix)


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
