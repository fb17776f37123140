"""Recipes of other medical sets on small files of their shape: what is read, what stays together, what is told.

The sets themselves were not seen; the address in each test is where its columns or its faults are told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from audits import invented_lengths
from medtune.config.recipes import load_for_source
from medtune.data.audit import audit_rows
from medtune.data.audit_tables import leak_sentences, print_audit
from medtune.data.preparation import Prepared, prepare_data
from medtune.data.splits import PARTS
from medtune.records import QAPair


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepare(recipe: str, source: Path, **overrides: Any) -> Prepared:
    return prepare_data(load_for_source(str(source), recipe, overrides))


def require_on_one_side(prepared: Prepared, key: Callable[[QAPair], str]) -> None:
    """Three parts with rows, and no value of `key` in two of them."""
    sides = [{key(row) for row in getattr(prepared.split, part)} for part in PARTS]
    assert all(sides)
    assert sum(map(len, sides)) == len(set.union(*sides))


def long_answer(number: int) -> str:
    return f"Doctor {number} says that it needs {number * 7919} days of rest."


# MedQuAD ------------------------------------------------------------------------------------------------------------


def test_medquad_of_lavita_is_split_by_its_focus_and_documents(tmp_path: Path) -> None:
    """Columns, and answers that are missing: https://huggingface.co/datasets/lavita/MedQuAD/blob/main/README.md."""
    rows = [
        {
            "document_id": f"{n // 2:07}", "document_source": "GARD", "document_url": "https://example.org",
            "category": "Disease", "umls_cui": "C0000001|C0000002", "umls_semantic_types": "T047",
            "umls_semantic_group": "Disorders", "synonyms": None, "question_id": f"{n}-1",
            "question_focus": f"Topic {n // 4}", "question_type": ("causes", "outlook")[n % 2],
            "question": f"Question {n} ?", "answer": long_answer(n) if n < 120 else None,
        }
        for n in range(160)
    ]  # fmt: skip
    path = write(tmp_path / "rows.jsonl", rows)
    prepared = prepare("medquad-lavita", path)
    require_on_one_side(prepared, lambda row: row.document_id)
    require_on_one_side(prepared, lambda row: row.focus)
    assert {row.qtype for row in prepared.rows} == {"causes", "outlook"}
    assert prepared.report["notes"] == [
        f"{path}: question type from question_type, focus from question_focus, source from document_source, not used: "
        "document_url, category, umls_cui, umls_semantic_types, umls_semantic_group, synonyms, question_id"
    ]
    assert prepared.report["warnings"] == [
        f"25.0% of the rows were left out. {path}: 160 rows, 120 kept; left out: 40 without an answer."
    ]


def test_medquads_xml_is_read_by_any_recipe_and_split_by_document(tmp_path: Path) -> None:
    """Its elements, and answers that are missing: https://github.com/abachaa/MedQuAD."""
    for n in range(30):
        pairs = "".join(
            f'<QAPair pid="{pid}"><Question qtype="causes">Question {pid} of {n} ?</Question>'
            f"<Answer>{long_answer(10 * n + pid) if pid < 3 else ''}</Answer></QAPair>"
            for pid in (1, 2, 3)
        )
        text = f'<Document id="{n}" source="NIH"><Focus>Topic {n}</Focus><QAPairs>{pairs}</QAPairs></Document>'
        (tmp_path / f"{n:07}.xml").write_text(text, encoding="utf-8")
    prepared = prepare("smollm2-135m", tmp_path)
    assert (len(prepared.rows), prepared.report["source"]["unanswered"]) == (60, 30)
    require_on_one_side(prepared, lambda row: row.document_id)


# Patients and doctors -----------------------------------------------------------------------------------------------


def test_icliniqs_answers_are_the_doctors_and_one_question_stays_on_one_side(tmp_path: Path) -> None:
    """The set: https://huggingface.co/datasets/lavita/ChatDoctor-iCliniq/tree/main/data."""
    rows = [
        {"input": f"Hello doctor, question {n // 2} ?", "answer_icliniq": long_answer(n),
         "answer_chatgpt": "I am a language model, and no doctor.", "answer_chatdoctor": "Hi, welcome to Chat Doctor."}
        for n in range(120)
    ]  # fmt: skip
    path = write(tmp_path / "rows.jsonl", rows)
    prepared = prepare("icliniq", path)
    assert {row.answer for row in prepared.rows} == {long_answer(n) for n in range(120)}
    require_on_one_side(prepared, lambda row: row.question)
    assert prepared.report["notes"] == [f"{path}: not used: answer_chatgpt, answer_chatdoctor"]


def consultation(number: int, split: str, answer: int | None = None) -> dict[str, str]:
    return {
        "instruction": "If you are a doctor, please answer the patient.", "input": f"Patient {number} has a cold ?",
        "output": long_answer(number if answer is None else answer), "split": split,
    }  # fmt: skip


@pytest.fixture
def consultations(tmp_path: Path) -> Path:
    """Of its test rows three repeat another one, one repeats its question alone, and two are training rows."""
    numbers = {"train": range(30), "validation": range(30, 36), "test": range(36, 56)}
    rows = [consultation(n, split) for split, of_part in numbers.items() for n in of_part]
    rows += [consultation(n, "test") for n in (36, 37, 38)]
    rows += [consultation(39, "test", answer=99)]
    rows += [consultation(n, "test") for n in (0, 1)]
    return write(tmp_path / "rows.jsonl", rows)


def test_the_audit_tells_of_duplicates_in_a_test_set_and_of_those_in_training(consultations: Path) -> None:
    """As in the test rows of MedDialog: https://github.com/stanford-crfm/helm/issues/3746."""
    as_given = {"data.columns.split": "split", "data.split.method": "column"}
    config = load_for_source(str(consultations), "chatdoctor", as_given)
    prepared = prepare_data(config)
    audit = audit_rows(prepared, invented_lengths(prepared), config)
    assert audit.duplicates.rows_dropped == 3
    assert (audit.counts.rows, audit.counts.questions_normalized) == (59, 56)
    shared = audit.leakage["question_normalized"]
    assert shared is not None
    assert shared.split.in_train.rows == 2
    assert audit.conflicting_answers.questions == 1
    assert leak_sentences(audit)[0].startswith("This split (column) leaks. Among its 23 test rows 8.7% share their")
    printed = StringIO()
    print_audit(audit, Console(file=printed, width=200))
    assert "Rows kept: 59 with 56 questions (56 by their words), 57 answers" in printed.getvalue()
    assert prepared.report["warnings"] == [
        f"4.8% of the rows were left out. {consultations}: 62 rows, 59 kept; left out: 3 that repeat an earlier row."
    ]


def test_chatdoctors_instruction_is_left_out_and_its_duplicates_stay_together(consultations: Path) -> None:
    """The set: https://huggingface.co/datasets/lavita/ChatDoctor-HealthCareMagic-100k/tree/880de714562caa13fe81a3d31b5ca751f311da7e."""
    prepared = prepare("chatdoctor", consultations)
    assert len(prepared.rows) == 57
    assert prepared.rows[0].question == "Patient 0 has a cold ?"
    require_on_one_side(prepared, lambda row: row.question)


# Exams --------------------------------------------------------------------------------------------------------------


def test_pubmedqas_short_answers_are_kept_and_join_no_abstracts(tmp_path: Path) -> None:
    """Columns: https://huggingface.co/datasets/qiaojin/PubMedQA/blob/main/README.md."""
    rows = [
        {"pubid": 1000 + n // 2, "question": f"Does drug {n} help ?",
         "context": {"contexts": [f"We gave drug {n}.", "Some got well."], "labels": ["METHODS", "RESULTS"]},
         "long_answer": long_answer(n), "final_decision": ("yes", "no", "yes", "maybe")[n % 4]}
        for n in range(120)
    ]  # fmt: skip
    prepared = prepare("pubmedqa", write(tmp_path / "rows.jsonl", rows))
    assert {row.answer for row in prepared.rows} == {"yes", "no", "maybe"}
    assert prepared.rows[0].question == "Does drug 0 help ?\n\nWe gave drug 0.\nSome got well."
    assert len({row.group for row in prepared.rows}) == 60
    assert len(prepared.split.test) == 60
    require_on_one_side(prepared, lambda row: row.document_id)


def test_medmcqas_hidden_test_is_left_out_and_one_right_option_stays_on_one_side(tmp_path: Path) -> None:
    """Columns: https://www.tensorflow.org/datasets/community_catalog/huggingface/medmcqa."""
    rows = []
    for n in range(63):
        options = [f"Wrong {n} {letter}" for letter in "abc"]
        options.insert(n % 4, f"Drug {n // 2}")
        rows.append({"id": str(n), "question": f"Which drug is number {n} ?",
                     **dict(zip(("opa", "opb", "opc", "opd"), options, strict=True)), "cop": n % 4 if n < 60 else -1,
                     "choice_type": "single", "exp": None, "subject_name": ("Surgery", "Dental")[n % 2],
                     "topic_name": "Drugs"})  # fmt: skip
    path = write(tmp_path / "rows.jsonl", rows)
    prepared = prepare("medmcqa", path)
    assert {row.answer for row in prepared.rows} == {f"Drug {n}" for n in range(30)}
    assert {row.qtype for row in prepared.rows} == {"Surgery", "Dental"}
    assert len({row.group for row in prepared.rows}) == 30
    require_on_one_side(prepared, lambda row: row.answer)
    assert prepared.report["source"]["no_right_option"] == 3
    assert prepared.report["warnings"] == [
        f"4.8% of the rows were left out. {path}: 63 rows, 60 kept; left out: 3 without a right option."
    ]
