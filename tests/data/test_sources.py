"""Sources of rows: columns, ids, fingerprints, and what is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest

from medtune.config.sources import ColumnsSection
from medtune.data import pairs
from medtune.data.sources import DEMO_SOURCE, SourceRows, check_source, read_source
from medtune.errors import DataError
from medtune.records import QAPair
from row_files import COLUMNS, HEADER, read, refused, write, write_parquet

# What is read -------------------------------------------------------------------------------------------------------


def row_id(question: str, answer: str) -> str:
    """The id of a row that is the first with its text."""
    return pairs.row_id(question, answer, taken=(), copies=Counter())


def test_a_row_of_a_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.csv", 'qtype,Question,Answer,focus,document_id,source\ncauses,Q,"A, ""b""\nc",gout,1/2,NIH\n'
    )
    assert read(path) == SourceRows(
        [QAPair(row_id("Q", 'A, "b"\nc'), "causes", "Q", 'A, "b"\nc', document_id="1/2", focus="gout", source="NIH")]
    )


def test_columns_match_exactly_or_else_whatever_their_case(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "QUESTION,answer,Answer\nq,lower,exact\n")
    (pair,) = read(path).pairs
    assert (pair.question, pair.answer) == ("q", "exact")


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "frage,antwort,key,topic\nq,a,k1,gout\n")
    columns = ColumnsSection(question="frage", answer="antwort", id="key", focus="topic", qtype=None)
    assert read(path, columns).pairs == [QAPair("k1", "", "q", "a", focus="gout")]


def test_a_named_column_is_left_alone_when_it_is_set_to_none(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "Question,Answer,qtype,focus\nq,a,t,f\n")
    assert read(path, ColumnsSection(qtype=None, focus=None)).pairs == [QAPair(row_id("q", "a"), "", "q", "a")]


def test_rows_without_an_answer_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", f"{HEADER}t,q0,\nt,q1,a1\nt,q2,  \nt,q3,a3\n")
    rows = read(path)
    assert [pair.answer for pair in rows.pairs] == ["a1", "a3"]
    assert rows.unanswered == 2


def test_ids_of_rows_that_bring_none_follow_their_text(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", f"{HEADER}t,q,a\nt,r,b\nt,q,a\nt,q,a\n")
    ids = [pair.id for pair in read(path).pairs]
    assert ids == [row_id("q", "a"), row_id("r", "b"), row_id("q", "a") + "-2", row_id("q", "a") + "-3"]
    moved = write(tmp_path / "moved.csv", f"{HEADER}t,r,b\nt,q,a\n")
    assert [pair.id for pair in read(moved).pairs] == [row_id("r", "b"), row_id("q", "a")]


def test_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    lines = '{"Question": "q", "Answer": "a"}\n{"Question": "r", "Answer": "b", "focus": "gout"}\n'
    assert [pair.focus for pair in read(write(tmp_path / "rows.jsonl", lines)).pairs] == ["", "gout"]


def test_gaps_are_empty_text(tmp_path: Path) -> None:
    nothing = float("nan")
    path = write_parquet(
        tmp_path / "rows.parquet",
        {"Question": ["q", "r"], "Answer": ["a", None], "qtype": [None, None], "focus": [nothing, nothing]},
    )
    assert read(path) == SourceRows([QAPair(row_id("q", "a"), "", "q", "a")], unanswered=1)
    lines = write(tmp_path / "rows.jsonl", '{"Question": "q", "Answer": "a"}\n{"Question": "r", "Answer": NaN}\n')
    assert read(lines) == SourceRows([QAPair(row_id("q", "a"), "", "q", "a")], unanswered=1)


def test_numbers_will_do_for_labels(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "rows.parquet", {"Question": ["q"], "Answer": ["a"], "id": [7], "document_id": [12], "focus": [1.5]}
    )
    assert read(path, ColumnsSection(id="id")).pairs == [QAPair("7", "", "q", "a", document_id="12", focus="1.5")]


def test_an_id_holds_nothing_that_utf8_cannot_write(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"Question": "q", "Answer": "a", "id": "r\\ud8001\\u0000"}\n')
    assert read(path, ColumnsSection(id="id")).pairs[0].id == "r1"


def test_the_demo_rows() -> None:
    rows = read_source(DEMO_SOURCE, COLUMNS)
    assert len(rows.pairs) == 466
    assert rows.unanswered == 0
    assert all(pair.question and pair.answer and pair.focus and pair.qtype for pair in rows.pairs)
    assert rows.fingerprint() == read_source(DEMO_SOURCE, COLUMNS).fingerprint()


# Fingerprints -------------------------------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_id_question_answer_and_order() -> None:
    first, second = QAPair("1", "t", "q", "a"), QAPair("2", "t", "r", "b")
    rows = [
        [first, second],
        [second, first],
        [first],
        [QAPair("0", "t", "q", "a"), second],
        [QAPair("1", "t", "Q", "a"), second],
        [QAPair("1", "t", "q", "A"), second],
        [QAPair("1", "t", "qa", ""), second],
    ]
    assert len({SourceRows(pairs).fingerprint() for pairs in rows}) == len(rows)


def test_a_fingerprint_covers_every_field() -> None:
    pair = QAPair("1", "t", "q\ud800", "é", "g", "d", "f", "s")
    prints = {SourceRows([pair]).fingerprint()}
    prints |= {SourceRows([replace(pair, **{field.name: "other"})]).fingerprint() for field in fields(QAPair)}
    assert len(prints) == 1 + len(fields(QAPair))
    assert SourceRows([replace(pair)]).fingerprint() in prints


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "no column 'Answer'; it has qtype, Question, Reply; name yours with --set data.columns.answer=NAME"),
        (
            {"question": "Frage", "answer": "Reply"},
            "no column 'Frage'; it has qtype, Question, Reply; name yours with --set data.columns.question=Question",
        ),
        (
            {"answer": "Reply", "id": "key"},
            "no column 'key'; it has qtype, Question, Reply; name yours with --set data.columns.id=NAME",
        ),
    ],
)
def test_a_missing_column_is_named_with_those_present_and_the_key_to_set(
    tmp_path: Path, columns: dict[str, str], expected: str
) -> None:
    path = write(tmp_path / "rows.csv", "qtype,Question,Reply\nt,q,a\n")
    assert refused(path, ColumnsSection(**columns)) == expected  # type: ignore[arg-type]


def test_all_missing_columns_are_reported_together(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "a,b\n1,2\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).splitlines() == [
        f"{path}: no column 'Question'; it has a, b; name yours with --set data.columns.question=NAME",
        f"{path}: no column 'Answer'; it has a, b; name yours with --set data.columns.answer=NAME",
    ]


def test_a_header_with_a_line_break_is_shown_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'Question,"Answer\n(text)"\nq,a\n')
    assert refused(path).startswith("no column 'Answer'; it has Question, 'Answer\\n(text)'; name yours")


def test_a_column_that_two_could_be_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "question,QUESTION,Answer\n1,2,3\n")
    assert refused(path) == (
        "its columns question and QUESTION could each be the question; choose one with --set "
        "data.columns.question=question"
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_duplicate_ids_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        write_parquet(path, {"Question": ["q", "r"], "Answer": ["a", "b"], "id": ["x", "x"]})
    elif kind == "csv":
        write(path, "Question,Answer,id\nq,a,x\nr,b,x\n")
    else:
        write(path, '{"Question": "q", "Answer": "a", "id": "x"}\n{"Question": "r", "Answer": "b", "id": "x"}\n')
    assert refused(path, ColumnsSection(id="id")) == (
        "id 'x' is in two rows; ids must be unique, or leave data.columns.id out"
    )
    assert [pair.id for pair in read(path).pairs] == [row_id("q", "a"), row_id("r", "b")]


@pytest.mark.parametrize("name", ["absent.csv", "absent.jsonl.gz", "absent.parquet", "./absent", "/absent", "~/absent"])
def test_a_missing_path(name: str) -> None:
    for act in (check_source, lambda source: read_source(source, COLUMNS)):
        with pytest.raises(DataError) as caught:
            act(name)
        assert str(caught.value) == (
            f"{name}: no such file or folder; give data.source an existing path or a Hub data set's id"
        )


def test_a_name_too_long_for_a_file() -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_source("x" * 300 + ".csv", COLUMNS)
    with pytest.raises(DataError, match="no such file or folder"):
        check_source("x" * 300 + ".csv")


def test_a_hub_data_set_that_is_not_cached_is_named() -> None:
    with pytest.raises(DataError, match="data set nobody/nothing-of-this-name: ") as caught:
        read_source("nobody/nothing-of-this-name", COLUMNS)
    assert len(str(caught.value).splitlines()) == 1


def test_checking_a_source_reads_no_rows(tmp_path: Path) -> None:
    check_source(DEMO_SOURCE)
    check_source(str(tmp_path))
    check_source(str(write(tmp_path / "rows.csv", b"\xff not a table")))
    with pytest.raises(DataError, match="unknown kind of file"):
        check_source(str(write(tmp_path / "rows.txt", "")))


# Folders ------------------------------------------------------------------------------------------------------------


def test_a_folder_of_tables_is_one_source_in_the_order_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / ".cache").mkdir()
    write(tmp_path / "b.csv", "Question;Answer\nq2;a2\n")
    write(tmp_path / "a.jsonl", '{"prompt": "q1", "completion": "a1"}\n{"prompt": "q2", "completion": "a2"}\n')
    write_parquet(tmp_path / "more" / "c.parquet", {"Question": ["q3"], "Answer": ["a3"]})
    write(tmp_path / ".cache" / "d.csv", "no,table\n1\n")
    write(tmp_path / "README.md", "# Rows")
    write(tmp_path / "dataset_info.json", "{}")
    rows = read(tmp_path)
    assert [(pair.question, pair.answer) for pair in rows.pairs] == [
        ("q1", "a1"), ("q2", "a2"), ("q2", "a2"), ("q3", "a3"),
    ]  # fmt: skip
    assert len({pair.id for pair in rows.pairs}) == 4
    assert rows.notes == (
        "3 files, from a.jsonl on", "question from prompt, answer from completion", "separator semicolon",
    )  # fmt: skip
    assert rows.folder_of == "tables"


def test_an_id_in_two_files_of_a_folder_is_refused(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.csv", "Question,Answer,id\nq,a,x\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path, ColumnsSection(id="id"))
    assert str(caught.value).startswith(f"{tmp_path / 'b.csv'}: id 'x' is in two rows")


def test_a_folder_of_tables_and_xml_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "Question,Answer\nq,a\n")
    write(tmp_path / "b.xml", "<Document/>")
    assert refused(tmp_path) == ("holds both MedQuAD XML and tables, such as a.csv; put them in folders of their own")


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith("no .xml files in it")


# MedQuAD ------------------------------------------------------------------------------------------------------------


def test_both_tables_of_medquad_are_read_whole(medquad: SourceRows, medquad_hub_shape: SourceRows) -> None:
    for rows in (medquad, medquad_hub_shape):
        assert len(rows.pairs) == 15_651
        assert rows.unanswered == 0
        assert len({pair.id for pair in rows.pairs}) == 15_651
    assert all(pair.document_id and pair.source and pair.qtype for pair in medquad.pairs)
    assert sum(not pair.focus for pair in medquad.pairs) == 14
    assert not any(pair.document_id or pair.focus or pair.source for pair in medquad_hub_shape.pairs)


def test_both_tables_of_medquad_hold_the_same_rows(medquad: SourceRows, medquad_hub_shape: SourceRows) -> None:
    first, second = (
        [(pair.qtype, pair.question, pair.answer) for pair in rows.pairs] for rows in (medquad, medquad_hub_shape)
    )
    assert first == second
    assert [pair.id for pair in medquad.pairs] == [pair.id for pair in medquad_hub_shape.pairs]
