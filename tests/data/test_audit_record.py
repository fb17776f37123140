"""Audits are read back as they were written, and so are those of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audits import audit_of, write
from medtune.data.audit_record import Audit
from medtune.storage.reading import DamagedError, check_type


def test_optional_counts_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    written = audit_of(write(tmp_path / "rows.jsonl")).as_json()
    assert list(written) == [
        "version", "source", "cleaning", "split", "counts", "duplicates", "conflicting_answers", "lengths",
        "truncation", "leakage", "leaking_test_rows",
    ]  # fmt: skip
    assert list(written["split"]) == ["method", "rows", "types"]
    leakage = written["leakage"]
    assert list(leakage["focus"]["split"]["in_train"]) == ["rows", "share"]
    assert list(leakage["answer_exact"]["random"]["in_train"]) == ["rows", "share", "template_rows"]


def test_an_audit_may_lack_what_the_report_does_without(tmp_path: Path) -> None:
    whole = audit_of(write(tmp_path / "rows.jsonl"))
    values = json.loads(json.dumps(whole.as_json()))
    for name in ("version", "source", "conflicting_answers", "leaking_test_rows"):
        del values[name]
    for section, name in (("counts", "types"), ("lengths", "row_is"), ("truncation", "no_room"), ("split", "types")):
        del values[section][name]
    del values["leakage"]["focus"]["random"]
    read = check_type(Audit, values)
    assert read.counts.rows == whole.counts.rows
    assert (read.leaking_test_rows, read.conflicting_answers.questions, read.split.types) == ({}, 0, {})
    assert read.leakage["focus"] is not None
    assert read.leakage["focus"].random is None


@pytest.mark.parametrize("name", ["cleaning", "split", "counts", "duplicates", "lengths", "truncation", "leakage"])
def test_what_the_report_shows_has_to_be_there(tmp_path: Path, name: str) -> None:
    values = audit_of(write(tmp_path / "rows.jsonl")).as_json()
    del values[name]
    with pytest.raises(DamagedError, match=rf"^{name}: field required"):
        check_type(Audit, values)
