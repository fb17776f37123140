"""The training rows of streamed data: a sample or all of them, without those whose prompts are too long."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medtune.config.schema import Config
from medtune.data.large.dealing import first_in_order, rows_of
from medtune.data.large.preparation import Streamed
from medtune.data.large.writing import Tables, among, pairs_in
from medtune.data.prompts import PromptRenderer
from medtune.data.room import too_long, training_room
from medtune.data.splits import PARTS
from medtune.records import QAPair

# Up to so many rows are written in seeded order, as in memory; more in the order of the source.
ORDERED_ROWS = 50_000


class TrainingPart:
    """The training rows as `data.train_limit` wants them, as tables; `count` of them, `unfit` left out."""

    def __init__(self, streamed: Streamed, tables: Tables, config: Config, renderer: PromptRenderer | None) -> None:
        self._tables, self._renderer, self._limit = tables, renderer, training_room(config)
        codes, train, limit = streamed.dealt.codes, PARTS.index("train"), config.data.train_limit
        self.count = min(streamed.dealt.rows["train"], limit or streamed.found.rows)
        self.unfit: list[QAPair] = []
        self._order: Any = None
        if self.count <= ORDERED_ROWS or self.count < streamed.dealt.rows["train"]:
            rows = first_in_order(streamed.found, rows_of(codes, train), self.count, config.seed)
            self._order = np.array(rows, np.int64)
        wanted = None if self._order is None else np.sort(self._order)
        self._is_chosen = (lambda rows: codes[rows] == train) if wanted is None else among(wanted)

    def tables(self) -> Iterator[pa.Table]:
        """The rows, many at a time."""
        found = self._tables.chosen(self._is_chosen)
        if self._order is not None and self.count <= ORDERED_ROWS:
            whole = pa.concat_tables([*found, self._tables.schema.empty_table()])
            # Rows come in the order of the source.
            found = iter([whole.take(np.argsort(np.argsort(self._order)))])
        for table in found:
            yield self._fitting(table)

    def _fitting(self, table: pa.Table) -> pa.Table:
        if self._renderer is None:
            return table
        # A token takes a byte at least: few rows have to be encoded.
        around = len(self._renderer.prompt_ids("?"))
        lengths = pc.add(pc.binary_length(table["question"]), around)
        doubtful = np.flatnonzero(pc.greater(lengths, self._limit).to_numpy(zero_copy_only=False))
        if not len(doubtful):
            return table
        pairs = pairs_in(table.take(doubtful))
        gone = too_long(self._renderer, pairs, self._limit)
        self.unfit += [pair for pair in pairs if pair.id in gone]
        kept = [pair.id not in gone for pair in pairs]
        mask = np.ones(table.num_rows, bool)
        mask[doubtful] = kept
        return table.filter(pa.array(mask))
