"""A merge's record is, as JSON and read again, what it was."""

import json
from dataclasses import FrozenInstanceError, asdict

import pytest

from medtune.model.merging.record import Divergence, MergeMeasurement, MergeRecord
from medtune.storage.reading import FileRecord, check_type

MEASURED = MergeMeasurement(
    64, 6194, Divergence(0.005, 0.013, 0.11), 0.95, None, Divergence(1.2, 3.0, 9.0), 160, 0.5, 8, "nf4", "float32", 0.1,
    0.01, True,
)  # fmt: skip
UNMEASURED = MergeRecord("to", "base", None, "f", "bfloat16", 1, 10, 3, 1.5, 99, not_measured="no room")
RECORDS = [
    UNMEASURED,
    MergeRecord(
        "to", "owner/base", "c0ffee", "f", "float32", 2, 10, 3, 1.5, 99, MEASURED, files={"a": FileRecord(3, "00")}
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=["unmeasured", "measured"])
def test_written_as_json_and_read_again_it_is_the_same(record):
    assert check_type(MergeRecord, json.loads(json.dumps(asdict(record)))) == record


def test_its_files_are_not_shown_and_nothing_of_it_changes():
    assert "FileRecord" not in repr(RECORDS[1])
    with pytest.raises(FrozenInstanceError):
        UNMEASURED.base = "another"
