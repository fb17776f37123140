"""Arrays on disk, block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtune.data.large import arrays


@pytest.mark.parametrize(("values", "begins"), [([], []), ([7], [0]), ([1, 1, 2, 5, 5, 5], [0, 2, 3])])
def test_where_runs_begin(values: list[int], begins: list[int]) -> None:
    assert arrays.run_begins(np.array(values, np.int64)).tolist() == begins


def test_rows_with_equal_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK", 3)
    keys = np.array([5, 0, 8, 5, 9, 8, 0, 5], np.uint64)
    arrays.append(tmp_path / "keys", keys[:4])
    arrays.append(tmp_path / "keys", keys[4:])
    found = {
        (int(row), int(first))
        for rows, firsts in arrays.equal_runs(tmp_path / "keys")
        for row, first in zip(rows, firsts, strict=True)
    }
    assert found == {(0, 0), (3, 0), (7, 0), (2, 2), (5, 2)}
    assert arrays.distinct_count(tmp_path / "keys") == 3


def test_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK", 2)
    arrays.append(tmp_path / "values", np.arange(5, dtype=np.int32))
    arrays.keep_only(tmp_path / "values", np.int32, np.array([1, 0, 1, 1, 0], np.uint8))
    assert arrays.part(tmp_path / "values", np.int32, 0, 9).tolist() == [0, 2, 3]
