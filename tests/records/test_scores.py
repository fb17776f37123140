"""Which metrics a verdict rests on."""

from __future__ import annotations

from typing import get_args

import pytest

from medtune.records import ComparisonRow
from medtune.records.scores import Verdict

TESTED = {"better", "worse", "equivalent", "cannot tell", "too few groups", "undefined"}


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_every_verdict_but_a_description_is_of_a_primary_metric(verdict: Verdict) -> None:
    row = ComparisonRow("bleu", 1.0, 2.0, 1.0, None, None, None, verdict, None, 2, 1, "sig")
    assert row.is_primary == (verdict in TESTED)
