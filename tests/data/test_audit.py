from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medtune.config.checking import parse_config
from medtune.config.schema import Config
from medtune.data.audit import TokenLengths, Truncation, audit_rows
from medtune.data.audit_tables import leak_sentences, print_audit, print_leakage
from medtune.data.prepare import Prepared, prepare_data

TRUNCATION = Truncation(max_length=30, policy="cut", rows=32, cut=5, dropped=0, no_room=1, tokens=1000, tokens_lost=123)


def configure(source: Path, **data: Any) -> Config:
    values = {
        "model": {"base": "owner/model"},
        "data": {"source": str(source), **data},
        "training": {"max_length": 30},
        "generation": {"max_new_tokens": 20},
    }
    return parse_config(values, origin="test")


def write(path: Path) -> Path:
    """Forty rows on twenty topics: three questions with two answers, four equal answers, and one row to drop."""
    rows: list[dict[str, str]] = []
    for number in range(20):
        for kind in ("causes", "symptoms"):
            rows.append(
                {
                    "qtype": kind, "Question": f"{kind} of {number} ?", "Answer": f"Nobody knows the {kind} {number}.",
                    "focus": f"Topic {number}", "document_id": f"d{number}", "source": "NIH" if number < 5 else "CDC",
                }
            )  # fmt: skip
    rows += [{**rows[n], "Answer": f"It has another answer {n}."} for n in (0, 4, 9)]
    rows += [{**rows[n], "Question": f"Else {n} ?", "Answer": "Rest and wait and see."} for n in (1, 2, 3, 4)]
    rows += [{**rows[0], "Answer": "Too short."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lengths(prepared: Prepared) -> TokenLengths:
    rows = range(len(prepared.rows))
    return TokenLengths(
        tokenizer="owner/model",
        row_is="prompt, answer and end token",
        questions=[7 for _ in rows],
        answers=[n + 1 for n in rows],
        rows=[n + 8 for n in rows],
        truncation=TRUNCATION,
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return prepare_data(configure(write(tmp_path / "rows.jsonl")))


@pytest.fixture
def audit(prepared: Prepared, tmp_path: Path) -> dict[str, Any]:
    return audit_rows(prepared, lengths(prepared), configure(tmp_path / "rows.jsonl"))


def test_an_audit_is_json_and_the_same_every_time(audit: dict[str, Any], prepared: Prepared, tmp_path: Path) -> None:
    assert json.loads(json.dumps(audit)) == audit
    assert audit_rows(prepared, lengths(prepared), configure(tmp_path / "rows.jsonl")) == audit


def test_counts(audit: dict[str, Any]) -> None:
    counts = audit["counts"]
    assert counts.pop("largest_group") >= 8  # one answer joins the four rows and their topics
    assert counts.pop("groups") <= 18
    assert counts == {
        "rows": 47, "questions": 44, "questions_normalized": 44, "answers": 44, "documents": 20, "focuses": 20,
        "rows_without_focus": 0, "types": {"causes": 24, "symptoms": 23}, "sources": {"CDC": 30, "NIH": 17},
    }  # fmt: skip
    assert audit["cleaning"]["source"]["dropped_short"] == 1
    assert audit["cleaning"]["source"]["focus"] == "given"
    split = audit["split"]
    assert sum(split["rows"].values()) == 47
    assert {part: sum(types.values()) for part, types in split["types"].items()} == split["rows"]


def test_duplicates_and_conflicts(audit: dict[str, Any]) -> None:
    assert audit["duplicates"] == {
        "rows_dropped": 0,
        "answers_to_several_questions": 1,
        "most_questions_of_one_answer": 4,
        "rows_with_near_duplicate_answer": 4,
        "share_with_near_duplicate_answer": round(4 / 47, 4),
        "template_rows": 0,
        "template_rule": "7 topics, or 50 questions",
    }
    conflicts = audit["conflicting_answers"]
    examples = conflicts.pop("examples")
    assert conflicts == {"questions": 3, "questions_exact": 3, "rows": 6, "most_answers": 2}
    assert [example["question"] for example in examples] == ["causes of 0 ?", "causes of 2 ?", "symptoms of 4 ?"]
    assert all(example["answers"] == 2 and len(example["ids"]) == 2 for example in examples)


def test_lengths_and_truncation(audit: dict[str, Any]) -> None:
    assert audit["lengths"]["tokenizer"] == "owner/model"
    assert audit["lengths"]["answer"] == {
        "mean": 24.0,
        "median": 24,
        "p90": 43,
        "max": 47,
        "over": {"20": round(27 / 47, 4), "128": 0.0, "256": 0.0, "512": 0.0, "1024": 0.0},
    }
    assert audit["lengths"]["row"]["over"]["30"] == round(24 / 47, 4)
    assert audit["lengths"]["question"]["over"] == {"128": 0.0, "256": 0.0, "512": 0.0, "1024": 0.0}
    assert audit["truncation"] == {
        "max_length": 30, "policy": "cut", "rows": 32, "cut": 5, "dropped": 0, "no_room": 1, "tokens": 1000,
        "tokens_lost": 123,
    }  # fmt: skip


def test_a_grouped_split_has_nothing_to_say(audit: dict[str, Any]) -> None:
    assert all(leak["split"]["in_train_or_validation"]["rows"] == 0 for leak in audit["leakage"].values())
    assert all(not ids for ids in audit["leaking_test_rows"].values())
    assert audit["leakage"]["document"]["random"]["in_train"]["share"] > 0.5
    assert leak_sentences(audit) == []


@pytest.fixture
def random_audit(tmp_path: Path) -> dict[str, Any]:
    config = configure(write(tmp_path / "random.jsonl"), split={"method": "random"})
    prepared = prepare_data(config)
    return audit_rows(prepared, lengths(prepared), config)


def test_a_random_split_says_what_it_leaks(random_audit: dict[str, Any]) -> None:
    table = random_audit["leakage"]
    assert table["document"]["split"] == table["document"]["random"]
    share = f"{table['document']['split']['in_train']['share']:.1%}"
    (sentence,) = leak_sentences(random_audit)
    assert sentence.startswith("This split (random) leaks. Of its 5 test rows ")
    assert f"{share} share their document" in sentence
    assert "data.split.method grouped keeps them apart" in sentence
    assert len(random_audit["leaking_test_rows"]["document"]) == table["document"]["split"]["in_train"]["rows"] > 0


@pytest.mark.parametrize("name", ["audit", "random_audit"])
def test_the_tables_fit_eighty_columns(name: str, request: pytest.FixtureRequest) -> None:
    audit = request.getfixturevalue(name)
    out = StringIO()
    print_audit(audit, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for expected in ("dropped short", "causes", "p90", "over 1024", "over 20 ", "normalised question", "owner/model"):
        assert expected in text
    assert "47 with 44 questions" in text
    method = audit["split"]["method"]
    assert f"Split, {method}" in text
    assert text.count("random") >= 1


def test_names_are_no_markup(prepared: Prepared, tmp_path: Path) -> None:
    audit = audit_rows(prepared, lengths(prepared), configure(tmp_path / "rows.jsonl"))
    audit["lengths"]["tokenizer"] = "[bold]/x[/nope]"
    audit["counts"]["types"] = {"[red]": 1}
    out = StringIO()
    print_audit(audit, Console(file=out, width=80))
    assert "[bold]/x[/nope]" in out.getvalue()
    assert "[red]" in out.getvalue()


def test_many_and_long_types_are_cut_short(prepared: Prepared, tmp_path: Path) -> None:
    audit = audit_rows(prepared, lengths(prepared), configure(tmp_path / "rows.jsonl"))
    audit["counts"]["types"] = {f"{'long ' * 30}{n:03}": 1 for n in range(200)}
    out = StringIO()
    print_audit(audit, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("180 other types" in line for line in lines)
    assert len(lines) < 150


def test_the_short_form_is_the_leakage_table(audit: dict[str, Any]) -> None:
    out = StringIO()
    print_leakage(audit, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 14
    assert any(line.startswith("│ focus") and line.count("0.0%") >= 2 for line in lines)


def test_what_the_source_does_not_name_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    rows = [{"Question": f"Q{i} ?", "Answer": f"One two three four {i}."} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    prepared = prepare_data(configure(path))
    audit = audit_rows(prepared, lengths(prepared), configure(path))
    assert audit["leakage"]["document"] is audit["leakage"]["focus"] is None
    assert audit["cleaning"]["source"]["focus"] == "absent"
    out = StringIO()
    print_audit(audit, Console(file=out, width=80))
    assert out.getvalue().count("not given") == 8


# MedQuAD ------------------------------------------------------------------------------------------------------------


def test_the_audit_of_medquad(medquad_prepared: Prepared, shared_data: Path) -> None:
    audit = audit_rows(medquad_prepared, lengths(medquad_prepared), configure(shared_data / "medquad.parquet"))
    assert audit["counts"]["focuses"] == 4_484
    assert audit["counts"]["rows_without_focus"] == 14
    assert audit["duplicates"]["rows_dropped"] == 48
    assert audit["duplicates"]["most_questions_of_one_answer"] == 337
    assert audit["duplicates"]["share_with_near_duplicate_answer"] == pytest.approx(0.09, abs=0.01)
    assert audit["duplicates"]["template_rows"] == 978
    assert audit["conflicting_answers"]["most_answers"] == 19
    assert audit["conflicting_answers"]["questions_exact"] == 848
