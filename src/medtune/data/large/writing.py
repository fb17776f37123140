"""The parts of the split as the tables that later stages read, taken from the rows of all pieces."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medtune.data.large import arrays
from medtune.data.large.dealing import all_ids
from medtune.data.large.gathering import Gathered
from medtune.data.large.grouping import Groups
from medtune.data.large.hashes import id_text
from medtune.data.large.reading import FOCUS_READ
from medtune.records import QAPair
from medtune.storage.row_tables import row_schema

_WRITTEN_ROWS = 1 << 15


class Tables:
    """The rows of all pieces, with their own ids, groups and templates."""

    def __init__(self, found: Gathered, groups: Groups) -> None:
        self._found, self._groups, self._ids = found, groups, all_ids(found)
        self._places = arrays.mapped(found.table_rows, np.int64, found.rows)
        self._ends = np.searchsorted(self._places, np.array(found.ends)) if found.rows else np.zeros(len(found.ends))
        self.schema = row_schema(("references",) if found.has_references else ())

    def chosen(self, is_chosen: Callable[[Any], Any]) -> Iterator[pa.Table]:
        """The rows for which `is_chosen` is true, many at a time; it is asked about rows that follow on each other."""
        start = 0
        for number, path in enumerate(self._found.tables):
            stop = int(self._ends[number])
            rows = np.arange(start, stop)
            rows = rows[is_chosen(rows)] if len(rows) else rows
            start = stop
            if len(rows):
                yield from self._read(path, rows, self._found.ends[number - 1] if number else 0)

    def _read(self, path: Path, rows: Any, first: int) -> Iterator[pa.Table]:
        at = 0
        places = self._places[rows] - first
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(_WRITTEN_ROWS):
                inside = (places >= at) & (places < at + batch.num_rows)
                if inside.any():
                    table = pa.Table.from_batches([batch]).take(places[inside] - at)
                    yield self._completed(table, rows[inside])
                at += batch.num_rows

    def _completed(self, table: pa.Table, rows: Any) -> pa.Table:
        owners = self._groups.first[self._groups.groups.of(rows)]
        columns = {name: table[name] for name in self.schema.names}
        columns["id"], columns["group"] = self._texts(rows), self._texts(owners)
        columns["template"] = pa.array(self._groups.template[self._groups.clusters.of(rows)] == 1)
        if not self._found.has_focus:
            columns["focus"] = table[FOCUS_READ]
        return pa.table(columns, schema=self.schema)

    def ids(self, rows: Any) -> list[str]:
        """The ids of these rows."""
        return [id_text(id) for id in self._ids[rows].tolist()]

    def _texts(self, rows: Any) -> pa.Array:
        return pa.array(self.ids(rows), pa.string())

    def pairs(self, rows: Sequence[int]) -> list[QAPair]:
        """These rows, in this order."""
        wanted = np.unique(np.array(rows, np.int64))
        found: dict[str, QAPair] = {}
        for table in self.chosen(among(wanted)):
            found |= {pair.id: pair for pair in pairs_in(table)}
        return [found[id] for id in self.ids(np.array(rows, np.int64))]


def among(wanted: Any) -> Callable[[Any], Any]:
    """For `Tables.chosen`: whether rows are among those `wanted`, which are in order and none twice."""

    def is_wanted(rows: Any) -> Any:
        found = np.zeros(len(rows), bool)
        begin, end = np.searchsorted(wanted, [rows[0], rows[-1] + 1])
        found[wanted[begin:end] - rows[0]] = True
        return found

    return is_wanted


def pairs_in(table: pa.Table) -> list[QAPair]:
    """The rows of a table."""
    return [QAPair(**{**values, "references": tuple(values.get("references") or ())}) for values in table.to_pylist()]


def write_rows(path: Path, tables: Iterator[pa.Table], schema: pa.Schema, advance: Callable[[int], None]) -> int:
    """Write tables as one Parquet file; returns the bytes of its texts."""
    size = 0
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)
            size += table.nbytes
            advance(table.num_rows)
    return size
