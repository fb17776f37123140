"""The columns of rows, and the size of their files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medtune.storage.row_tables import parquet_size, row_schema


def test_later_columns_are_there_where_they_are_needed() -> None:
    plain, later = row_schema().names, row_schema(("references",)).names
    assert "references" not in plain
    assert [name for name in later if name != "references"] == plain


def test_the_size_of_a_file_is_that_of_its_unpacked_rows(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": ["x" * 1000] * 50}), tmp_path / "rows.parquet", use_dictionary=False, row_group_size=20
    )
    rows, size = parquet_size(tmp_path / "rows.parquet")
    assert rows == 50
    assert size > 50_000 > (tmp_path / "rows.parquet").stat().st_size
