"""Files of rows, as a test writes them and medtune reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtune.config.sources import ColumnsSection
from medtune.data.sources import SourceRows, read_source
from medtune.errors import DataError

COLUMNS = ColumnsSection()
HEADER = "qtype,Question,Answer\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def read(path: Path, columns: ColumnsSection = COLUMNS) -> SourceRows:
    return read_source(str(path), columns)


def refused(path: Path, columns: ColumnsSection = COLUMNS) -> str:
    """The one line with which a file is refused, less its name."""
    with pytest.raises(DataError) as caught:
        read(path, columns)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")
