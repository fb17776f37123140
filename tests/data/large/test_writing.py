"""Which rows of a block are wanted."""

from __future__ import annotations

import numpy as np
import pytest

from medtune.data.large.writing import among


@pytest.mark.parametrize("wanted", [[], [0], [3], [9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [2, 3, 7]])
def test_each_block_is_asked_for_its_own_rows(wanted: list[int]) -> None:
    is_wanted = among(np.array(wanted, np.int64))
    for begin in range(10):
        for end in range(begin + 1, 11):
            rows = np.arange(begin, end)
            assert is_wanted(rows).tolist() == np.isin(rows, wanted).tolist()
