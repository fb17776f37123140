"""What stages exchange: frozen, comparable, and as JSON what it was before."""

import dataclasses
import json

import pytest

from medtune import records
from medtune.model.merging.record import MergeRecord
from medtune.records import ComparisonRow, Prediction, QAPair, Score, Stratum
from medtune.storage.reading import check_type

KINDS = [kind for kind in vars(records).values() if dataclasses.is_dataclass(kind)]
RECORDS = [
    QAPair("1", "causes", "What causes gout ?", "Uric acid.", group="gout", template=True),
    Prediction("1", "q", "r", "p", new_tokens=3, finish_reason="stop", reference_nll=1.25, reference_tokens=4),
    Score(0.25, 56, "rouge", 8, (0.2, 0.3), details={"precision": 0.5}),
    ComparisonRow("bleu", 1.0, 2.0, 1.0, None, None, None, "undefined", None, 2, 1, "sig"),
    Stratum("qtype", "causes", 4, 2, {}),
    MergeRecord("to", "base", None, "f", "bfloat16", 1, 10, 3, 1.5, 99),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_record_can_be_changed(kind):
    assert kind.__dataclass_params__.frozen
    assert kind.__doc__


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_written_as_json_and_read_again_it_is_the_same(record):
    assert check_type(type(record), json.loads(json.dumps(dataclasses.asdict(record)))) == record
