"""What an audit says of rows and their split, as it is written to `data/audit.json`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audits import audit_of, configure, invented_lengths, write
from medtune.data.audit import audit_rows, write_audit
from medtune.data.audit_record import Audit
from medtune.data.preparation import Prepared, prepare_data
from medtune.errors import DataError
from medtune.storage.reading import check_type


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare_data(configure(write(tmp_path / "rows.jsonl")))


@pytest.fixture
def audit(prepared: Prepared, tmp_path: Path) -> Audit:
    return audit_rows(prepared, invented_lengths(prepared), configure(tmp_path / "rows.jsonl"))


@pytest.fixture
def written(audit: Audit) -> dict[str, Any]:
    return audit.as_json()


def test_an_audit_is_json_and_the_same_every_time(audit: Audit, prepared: Prepared, tmp_path: Path) -> None:
    written = json.loads(json.dumps(audit.as_json()))
    assert written == audit.as_json()
    assert check_type(Audit, written) == audit
    assert audit_rows(prepared, invented_lengths(prepared), configure(tmp_path / "rows.jsonl")) == audit


def test_counts(written: dict[str, Any]) -> None:
    counts = written["counts"]
    assert counts.pop("largest_group") >= 8  # one answer joins the four rows and their topics
    assert counts.pop("groups") <= 18
    assert counts == {
        "rows": 47, "questions": 44, "questions_normalized": 44, "answers": 44, "documents": 20, "focuses": 20,
        "rows_without_focus": 0, "types": {"causes": 24, "symptoms": 23}, "sources": {"CDC": 30, "NIH": 17},
    }  # fmt: skip
    assert written["cleaning"]["source"]["dropped_short"] == 1
    assert written["cleaning"]["source"]["focus"] == "given"
    split = written["split"]
    assert sum(split["rows"].values()) == 47
    assert {part: sum(types.values()) for part, types in split["types"].items()} == split["rows"]


def test_duplicates_and_conflicts(written: dict[str, Any]) -> None:
    assert written["duplicates"] == {
        "rows_dropped": 0,
        "answers_to_several_questions": 1,
        "most_questions_of_one_answer": 4,
        "rows_with_near_duplicate_answer": 4,
        "share_with_near_duplicate_answer": round(4 / 47, 4),
        "template_rows": 0,
        "template_rule": "7 topics, or 50 questions",
    }
    conflicts = written["conflicting_answers"]
    examples = conflicts.pop("examples")
    assert conflicts == {"questions": 3, "questions_exact": 3, "rows": 6, "most_answers": 2}
    assert [example["question"] for example in examples] == ["causes of 0 ?", "causes of 2 ?", "symptoms of 4 ?"]
    assert all(example["answers"] == 2 and len(example["ids"]) == 2 for example in examples)


def test_lengths_and_truncation(written: dict[str, Any]) -> None:
    assert written["lengths"]["tokenizer"] == "owner/model"
    assert written["lengths"]["answer"] == {
        "mean": 24.0,
        "median": 24,
        "p90": 43,
        "max": 47,
        "over": {"20": round(27 / 47, 4), "128": 0.0, "256": 0.0, "512": 0.0, "1024": 0.0},
    }
    assert written["lengths"]["row"]["over"]["30"] == round(24 / 47, 4)
    assert written["lengths"]["question"]["over"] == {"128": 0.0, "256": 0.0, "512": 0.0, "1024": 0.0}
    assert written["truncation"] == {
        "max_length": 30, "policy": "cut", "rows": 32, "cut": 5, "dropped": 0, "no_room": 1, "tokens": 1000,
        "tokens_lost": 123,
    }  # fmt: skip


def test_a_grouped_split_leaks_nothing(written: dict[str, Any]) -> None:
    assert all(leak["split"]["in_train_or_validation"]["rows"] == 0 for leak in written["leakage"].values())
    assert all(not ids for ids in written["leaking_test_rows"].values())
    assert written["leakage"]["document"]["random"]["in_train"]["share"] > 0.5


def test_a_kind_that_the_source_does_not_name_is_null(tmp_path: Path) -> None:
    rows = [{"Question": f"Q{i} ?", "Answer": f"One two three four {i}."} for i in range(30)]
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    written = audit_of(tmp_path / "bare.jsonl").as_json()
    assert written["leakage"]["document"] is written["leakage"]["focus"] is None
    assert written["cleaning"]["source"]["focus"] == "absent"


def test_an_audit_is_written_or_the_reason_is_given(audit: Audit, tmp_path: Path) -> None:
    write_audit(replace(audit, source="é"), tmp_path / "audit.json")
    text = (tmp_path / "audit.json").read_text(encoding="utf-8")
    assert json.loads(text) == {**audit.as_json(), "source": "é"}
    assert '"source": "é"' in text
    with pytest.raises(DataError, match="cannot be written"):
        write_audit(audit, tmp_path)


# MedQuAD ------------------------------------------------------------------------------------------------------------


def test_the_audit_of_medquad(medquad_prepared: Prepared, shared_data: Path) -> None:
    config = configure(shared_data / "medquad.parquet")
    audit = audit_rows(medquad_prepared, invented_lengths(medquad_prepared), config).as_json()
    assert audit["counts"]["focuses"] == 4_484
    assert audit["counts"]["rows_without_focus"] == 14
    assert audit["duplicates"]["rows_dropped"] == 48
    assert audit["duplicates"]["most_questions_of_one_answer"] == 337
    assert audit["duplicates"]["share_with_near_duplicate_answer"] == pytest.approx(0.09, abs=0.01)
    assert audit["duplicates"]["template_rows"] == 978
    assert audit["conflicting_answers"]["most_answers"] == 19
    assert audit["conflicting_answers"]["questions_exact"] == 848
