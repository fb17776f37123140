"""The audit in a terminal of 80 columns, and in sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from audits import audit_of, write
from medtune.config.schema import parse_config
from medtune.data.audit_record import Audit
from medtune.data.audit_tables import leak_sentences, print_audit, print_leakage
from medtune.data.preparation import prepare_data
from medtune.data.token_lengths import audit_prepared


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return audit_of(write(tmp_path / "rows.jsonl"))


@pytest.fixture
def random_audit(tmp_path: Path) -> Audit:
    return audit_of(write(tmp_path / "random.jsonl"), split={"method": "random"})


def test_a_grouped_split_has_nothing_to_say(audit: Audit) -> None:
    assert leak_sentences(audit) == []


def test_a_random_split_says_what_it_leaks(random_audit: Audit) -> None:
    document = random_audit.leakage["document"]
    assert document is not None
    assert document.split == document.random
    (sentence,) = leak_sentences(random_audit)
    assert sentence.startswith("This split (random) leaks. Among its 5 test rows ")
    assert f"{document.split.in_train.share:.1%} share their document" in sentence
    assert "data.split.method grouped keeps them apart" in sentence
    assert len(random_audit.leaking_test_rows["document"]) == document.split.in_train.rows > 0


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
    method = audit.split.method
    assert f"Split, {method}" in text
    assert text.count("random") >= 1


def test_names_are_no_markup(audit: Audit) -> None:
    audit = replace(
        audit,
        lengths=replace(audit.lengths, tokenizer="[bold]/x[/nope]"),
        counts=replace(audit.counts, types={"[red]": 1}),
    )
    out = StringIO()
    print_audit(audit, Console(file=out, width=80))
    assert "[bold]/x[/nope]" in out.getvalue()
    assert "[red]" in out.getvalue()


def test_many_and_long_types_are_cut_short(audit: Audit) -> None:
    types = {f"{'long ' * 30}{n:03}": 1 for n in range(200)}
    audit = replace(audit, counts=replace(audit.counts, types=types))
    out = StringIO()
    print_audit(audit, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("180 other types" in line for line in lines)
    assert len(lines) < 150


def test_the_short_form_is_the_leakage_table(audit: Audit) -> None:
    out = StringIO()
    print_leakage(audit, Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert len(lines) <= 14
    assert any(line.startswith("│ focus") and line.count("0.0%") >= 2 for line in lines)


def test_what_the_source_does_not_name_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    rows = [{"Question": f"Q{i} ?", "Answer": f"One two three four {i}."} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    out = StringIO()
    print_audit(audit_of(path), Console(file=out, width=80))
    assert out.getvalue().count("not given") == 8


def test_rows_that_cannot_be_split_are_described_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"Question": f"Q{n} ?", "Answer": f"An answer of six words {n}."} for n in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = parse_config({"model": {"base": "owner/model"}, "data": {"source": str(path)}}, origin="test")
    audit = audit_prepared(prepare_data(config, must_split=False), config, renderer=None)
    out = StringIO()
    print_audit(audit, Console(file=out, width=80))
    text = " ".join(out.getvalue().split())
    assert "Rows kept: 2 with 2 questions" in text
    assert "No split: the validation split is empty (2 rows in all)" in text
    assert "Share of the test rows" not in text
    assert audit.as_json()["split"]["not_split"] == audit.split.not_split
