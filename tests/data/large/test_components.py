"""Sets of rows that grow together are those of a union of sets in memory."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from medtune.data.large import arrays
from medtune.data.large.components import Components


def joined_in_memory(rows: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The least row of the set of each."""
    names = list(range(rows))
    for one, other in pairs:
        low, high = sorted((names[one], names[other]))
        names = [low if name == high else name for name in names]
    return names


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_those_of_memory_and_named_after_their_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(arrays, "BLOCK", 4)
    monkeypatch.setattr("medtune.data.large.components.BLOCK", 4)
    draw, rows = random.Random(seed), 30
    pairs = [(draw.randrange(rows), draw.randrange(rows)) for _ in range(18)]
    sets = Components(tmp_path / "sets", rows)
    # All at once, and some that are joined already.
    for some in (pairs[:12], pairs[6:]):
        sets.join(*(np.array(side, np.int64) for side in zip(*some, strict=True)))
    sets.settle()
    wanted = joined_in_memory(rows, pairs)
    assert sets.of(np.arange(rows)).tolist() == wanted
    assert np.fromfile(tmp_path / "sets", np.int32).tolist() == wanted, "what is on disk is not settled"
    assert sets.sizes(tmp_path / "sizes").tolist() == [wanted.count(row) for row in range(rows)]


def test_a_chain_is_one_set_whatever_end_it_is_joined_from(tmp_path: Path) -> None:
    sets = Components(tmp_path / "sets", 6)
    for row in (4, 3, 2, 1):
        sets.join(np.array([row]), np.array([row + 1]))
    assert sets.of(np.arange(6)).tolist() == [0, 1, 1, 1, 1, 1]


def test_no_rows_are_no_sets(tmp_path: Path) -> None:
    sets = Components(tmp_path / "sets", 0)
    sets.settle()
    assert sets.sizes(tmp_path / "sizes").tolist() == []
