"""Rows as tables: the columns of a split's Parquet file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from medtune.records import LATER_FIELDS, QAPair, Turn

if TYPE_CHECKING:
    import pyarrow as pa


def parquet_size(path: Path) -> tuple[int, int]:
    """The rows of a Parquet file and the bytes that they take once unpacked, as it says itself.

    Raises pyarrow's errors and OSError if it cannot be read.
    """
    import pyarrow.parquet as pq

    described = pq.read_metadata(path)
    groups = map(described.row_group, range(described.num_row_groups))
    return described.num_rows, sum(group.total_byte_size for group in groups)


def row_schema(later: Iterable[str] = ()) -> pa.Schema:
    """The columns of a row, with those among `later` that came later and are needed."""
    import pyarrow as pa

    turns = pa.struct([("role", pa.string()), ("content", pa.string()), ("learned", pa.bool_())])
    kinds = {bool: pa.bool_(), tuple[str, ...]: pa.list_(pa.string()), tuple[Turn, ...]: pa.list_(turns)}
    types = {name: kinds.get(kind, pa.string()) for name, kind in get_type_hints(QAPair).items()}
    left_out = LATER_FIELDS - set(later)
    return pa.schema([(field.name, types[field.name]) for field in fields(QAPair) if field.name not in left_out])
