"""The audit of a stream has the numbers of the audit in memory, and says which it does not have."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from large_rows import configure, streamed, varied_rows, write_jsonl
from medtune.data.audit_record import Audit
from medtune.data.large.auditing import audit_streamed
from medtune.data.large.writing import Tables
from medtune.data.preparation import prepare_data
from medtune.data.token_lengths import audit_prepared

NOT_MADE = "A random split of the same rows is not made for comparison, nor are examples of conflicting answers given."
THROUGH_OTHERS = "Test rows near a training row's answer include those that are near it through other answers."


@pytest.mark.parametrize("method", ["grouped", "random"])
def test_counts_are_those_of_memory(tmp_path: Path, method: str) -> None:
    rows = [{**row, "source": f"site {number % 3}"} for number, row in enumerate(varied_rows())]
    config = configure(write_jsonl(tmp_path / "rows.jsonl", rows), split={"method": method})
    wanted = audit_prepared(prepare_data(config), config, None)
    with streamed(config, tmp_path) as found:
        audit = audit_streamed(found, Tables(found.found, found.groups), config, None, found.report["rows"])
    assert audit.not_computed == [NOT_MADE, THROUGH_OTHERS]
    assert comparable(audit) == comparable(wanted)
    for kind, leak in wanted.leakage.items():
        own = audit.leakage[kind]
        if leak is None or kind == "answer_near_duplicate":
            assert (own is None) == (leak is None)
            continue
        assert own is not None
        assert (own.split, own.random) == (leak.split, None)
    ids = {kind: set(found) for kind, found in audit.leaking_test_rows.items()}
    for kind, of_kind in wanted.leaking_test_rows.items():
        assert ids[kind] >= set(of_kind) if kind.startswith("answer_near") else ids[kind] == set(of_kind)


def comparable(audit: Audit) -> dict[str, object]:
    """What both have; examples and near-duplicates through others are told apart by `not_computed`."""
    values = asdict(audit)
    for name in ("leakage", "leaking_test_rows", "not_computed"):
        values.pop(name)
    values["conflicting_answers"].pop("examples")
    values["cleaning"]["source"].pop("focus")
    return values


def test_a_sample_and_what_is_not_searched_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medtune.data.large.auditing.SAMPLE", 50)
    path = write_jsonl(tmp_path / "rows.jsonl", varied_rows())
    config = configure(path, near_duplicate_limit=10)
    with streamed(config, tmp_path) as found:
        audit = audit_streamed(found, Tables(found.found, found.groups), config, None, found.report["rows"])
        searched = found.groups.searched
    assert audit.leakage["answer_near_duplicate"] is None
    assert audit.not_computed == [
        NOT_MADE,
        "Lengths, and what is cut of training rows, are those of 50 rows, spread over all.",
        f"Near-duplicates were not looked for among {searched.not_searched:,} different answers: equal ones alone are "
        "joined and counted.",
    ]
    assert 30 < audit.truncation.rows <= 50


def test_shared_rows_are_counted_among_all_training_rows(tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "rows.jsonl", varied_rows()), train_limit=20)
    with streamed(config, tmp_path) as found:
        audit = audit_streamed(found, Tables(found.found, found.groups), config, None, found.report["rows"])
        all_of_them = found.dealt.rows["train"]
    assert audit.split.rows["train"] == 20
    assert audit.not_computed is not None
    line = f"Shared rows are counted among all {all_of_them} training rows, of which data.train_limit takes 20."
    assert line in audit.not_computed
