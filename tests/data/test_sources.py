from __future__ import annotations

import datetime
import gzip
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.config.schema import ColumnsSection
from medtune.data import table_files
from medtune.data.sources import DEMO_SOURCE, SourceRows, check_source, read_source, row_id
from medtune.errors import DataError
from medtune.records import QAPair

COLUMNS = ColumnsSection()
HEADER = "qtype,Question,Answer\n"
WHOLE_GZIP = gzip.compress(f"{HEADER}causes,Q,A\n".encode(), mtime=0)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def read(path: Path, columns: ColumnsSection = COLUMNS) -> SourceRows:
    return read_source(str(path), columns)


def refused(path: Path, columns: ColumnsSection = COLUMNS) -> str:
    """The one line with which a file is refused, less its name."""
    with pytest.raises(DataError) as caught:
        read(path, columns)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


# What is read -------------------------------------------------------------------------------------------------------


def test_a_row_of_a_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.csv", 'qtype,Question,Answer,focus,document_id,source\ncauses,Q,"A, ""b""\nc",gout,1/2,NIH\n'
    )
    assert read(path) == SourceRows(
        [QAPair(row_id("Q", 'A, "b"\nc'), "causes", "Q", 'A, "b"\nc', document_id="1/2", focus="gout", source="NIH")]
    )


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet", ".CSV", ".Jsonl"])
def test_every_kind_of_table_holds_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    rows = [
        {"qtype": "causes", "Question": "Q1 ?", "Answer": "naïve — 😀"},
        {"qtype": "x", "Question": "", "Answer": "b"},
    ]
    if suffix == ".parquet":
        write_parquet(path, {key: [row[key] for row in rows] for key in rows[0]})
    else:
        text = (
            HEADER + "".join(f"{r['qtype']},{r['Question']},{r['Answer']}\n" for r in rows)
            if "csv" in suffix.lower()
            else "".join(json.dumps(row) + "\n" for row in rows)
        )
        write(path, gzip.compress(text.encode()) if suffix.endswith(".gz") else text)
    assert read(path).pairs == [
        QAPair(row_id("Q1 ?", "naïve — 😀"), "causes", "Q1 ?", "naïve — 😀"),
        QAPair(row_id("", "b"), "x", "", "b"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path: Path, end: str, mark: str) -> None:
    table = write(tmp_path / "rows.csv", f"{mark}{HEADER}t,q,a\n".replace("\n", end))
    lines = write(
        tmp_path / "rows.jsonl", f'{mark}{{"qtype": "t", "Question": "q", "Answer": "a"}}\n\n'.replace("\n", end)
    )
    assert read(table) == read(lines) == SourceRows([QAPair(row_id("q", "a"), "t", "q", "a")])


def test_words_that_pandas_takes_for_gaps_are_words(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", f"{HEADER}NA,null,nan\n1.0,007,1e5\n")
    assert [(p.qtype, p.question, p.answer) for p in read(path).pairs] == [("NA", "null", "nan"), ("1.0", "007", "1e5")]


def test_a_line_separator_inside_a_json_string_ends_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"Question": "q", "Answer": "a\u2028b\x85c"}\n')
    assert read(path).pairs[0].answer == "a\u2028b\x85c"


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


def test_dictionary_encoded_text(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "rows.parquet", {"Question": pa.array(["q", "q"]).dictionary_encode(), "Answer": ["a", "b"]}
    )
    assert [pair.question for pair in read(path).pairs] == ["q", "q"]


def test_an_id_holds_nothing_that_utf8_cannot_write(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"Question": "q", "Answer": "a", "id": "r\\ud8001\\u0000"}\n')
    assert read(path, ColumnsSection(id="id")).pairs[0].id == "r1"


def test_the_demo_rows() -> None:
    rows = read_source(DEMO_SOURCE, COLUMNS)
    assert len(rows.pairs) == 280
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
    ("name", "content", "expected"),
    [
        ("rows.csv", "", "not a readable CSV file (No columns to parse from file)"),
        ("rows.csv", "\n\n", "not a readable CSV file (No columns to parse from file)"),
        ("rows.csv", HEADER, "no rows with an answer (0 without)"),
        ("rows.csv", f"{HEADER}t,q,\nt,q,  \n", "no rows with an answer (2 without)"),
        ("rows.csv", f"{HEADER}t,q,a,surplus\n", "its first row has more cells than its header"),
        ("rows.csv", f"{HEADER}t,q,a,\nt,q,a,\n", "its first row has more cells than its header"),
        ("rows.csv", f"{HEADER}t,q,a\nt,q,a,surplus\n", "not a readable CSV file (Error tokenizing data"),
        ("rows.csv", f'{HEADER}t,q,"never closed\n', "not a readable CSV file (Error tokenizing data"),
        ("rows.csv", f"{HEADER}t,café,a\n".encode("latin-1"), "not UTF-8 text (invalid continuation byte at byte 27)"),
        ("rows.csv", f"{HEADER}t,q,a\n".encode("utf-16"), "not UTF-8 text (invalid start byte at byte 0)"),
        ("rows.csv.gz", b"", "not a readable CSV file"),
        ("rows.csv.gz", WHOLE_GZIP[:-5], "not a whole gzip file"),
        ("rows.csv.gz", WHOLE_GZIP[:12], "not a whole gzip file"),
        ("rows.csv.gz", WHOLE_GZIP + b"surplus", "not a whole gzip file"),
        ("rows.csv.gz", f"{HEADER}t,q,a\n", "not a whole gzip file (Not a gzipped file"),
        ("rows.csv.gz", WHOLE_GZIP[:14] + b"\xff\xff" + WHOLE_GZIP[16:], "not a whole gzip file"),
        ("rows.jsonl", "", "no rows with an answer (0 without)"),
        ("rows.jsonl", " \n\n", "no rows with an answer (0 without)"),
        ("rows.jsonl", '{"Question": "q", "Answer": ""}\n', "no rows with an answer (1 without)"),
        ("rows.jsonl", '{"Question": "q", "Answer": "a"}\n\n[1]\n', "line 3 is a list; one object a line is needed"),
        ("rows.jsonl", '"text"\n', "line 1 is a str; one object a line is needed"),
        ("rows.jsonl", "null\n", "line 1 is a NoneType; one object a line is needed"),
        ("rows.jsonl", '[\n{"Question": "q"}\n]\n', "line 1 is not JSON (Expecting value)"),
        (
            "rows.jsonl",
            '{"Question": "q", "Answer": "a"}\n{"Question": "q"',
            "line 2 is not JSON (Expecting ',' delimiter)",
        ),
        ("rows.jsonl", f'{{"Question": "q", "Answer": "a", "n": {"9" * 5000}}}', "line 1 is not JSON"),
        ("rows.jsonl", "[" * 100_000, "line 1 is not JSON"),
        (
            "rows.jsonl",
            b'{"Question": "caf\xe9", "Answer": "a"}\n',
            "not UTF-8 text (invalid continuation byte at byte",
        ),
        ("rows.jsonl", '{"Question": 1, "Answer": "a"}\n', "row 0: question is a int, not text; convert that column"),
        ("rows.jsonl", '{"Question": "q", "Answer": ["a"]}\n', "row 0: answer is a list, not text"),
        ("rows.jsonl", '{"Question": "q", "Answer": "a", "focus": {}}\n', "row 0: focus is a dict, not text"),
        ("rows.parquet", b"", "not a readable Parquet file"),
        ("rows.parquet", b"PAR1 and then nothing PAR1", "not a readable Parquet file"),
        ("rows.parquet", "Question,Answer\nq,a\n", "not a readable Parquet file"),
        ("rows.txt", "q\ta\n", "unknown kind of file; medtune reads .csv, .csv.gz, .jsonl, .jsonl.gz, .parquet and"),
        ("rows.json", "[]", "unknown kind of file"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    assert refused(write(tmp_path / name, content)).startswith(expected)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"Question": [1], "Answer": ["a"]}, "row 0: question is a int, not text"),
        ({"Question": ["q", "r"], "Answer": [b"a", b"b"]}, "row 0: answer is a bytes, not text"),
        ({"Question": ["q"], "Answer": [["a"]]}, "row 0: answer is a list, not text"),
        ({"Question": ["q"], "Answer": [True]}, "row 0: answer is a bool, not text"),
        ({"Question": ["q"], "Answer": ["a"], "focus": [datetime.date(2020, 1, 1)]}, "row 0: focus is a date"),
        ({"Question": ["q"], "Answer": [None]}, "no rows with an answer (1 without)"),
        ({"Question": pa.array([], pa.string()), "Answer": pa.array([], pa.string())}, "no rows with an answer (0"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_parquet_columns_of_the_wrong_type(tmp_path: Path, columns: dict[str, Any], expected: str) -> None:
    assert refused(write_parquet(tmp_path / "rows.parquet", columns)).startswith(expected)


def test_columns_of_nulls_count_although_they_take_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"Question": ["q"] * 1000, "Answer": ["a"] * 1000}
    nulls = {f"null {n}": pa.nulls(1000) for n in range(20)}
    monkeypatch.setattr(table_files, "MAX_TABLE_BYTES", 100_000)
    assert len(read_source(str(write_parquet(tmp_path / "texts.parquet", texts)), ColumnsSection()).pairs) == 1000
    assert "more than 100,000 bytes" in refused(write_parquet(tmp_path / "rows.parquet", {**texts, **nulls}))


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", {"Question": ["q"] * 100, "Answer": ["a"] * 100})
    write(path, path.read_bytes()[:-20])
    assert refused(path).startswith("not a readable Parquet file")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, "no column 'Answer'; it has qtype, Question, Reply; name yours in data.columns.answer"),
        (
            {"question": "Frage", "answer": "Reply"},
            "no column 'Frage'; it has qtype, Question, Reply; name yours in data.columns.question",
        ),
        (
            {"answer": "Reply", "id": "key"},
            "no column 'key'; it has qtype, Question, Reply; name yours in data.columns.id",
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
        f"{path}: no column 'Question'; it has a, b; name yours in data.columns.question",
        f"{path}: no column 'Answer'; it has a, b; name yours in data.columns.answer",
    ]


def test_a_header_with_a_line_break_is_shown_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'Question,"Answer\n(text)"\nq,a\n')
    assert refused(path).startswith("no column 'Answer'; it has Question, 'Answer\\n(text)'; name yours")


def test_a_column_that_two_could_be_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "question,QUESTION,Answer\n1,2,3\n")
    assert refused(path).startswith("no column 'Question'; it has question, QUESTION, Answer;")


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


@given(data=st.binary(max_size=60), suffix=st.sampled_from([".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet"]))
def test_whatever_a_file_holds_it_is_read_or_refused(
    data: bytes, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp() / f"fuzzed{suffix}", data)
    with pytest.raises(DataError) as caught:  # none of these spells out both columns
        read(path)
    assert str(caught.value)


@given(body=st.text(alphabet='ab,"\n\r\x00\x85é 1', max_size=30))
def test_whatever_follows_a_csv_header_it_is_read_in_its_columns_or_refused(
    body: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "fuzzed-body.csv", f"Question,Answer\n{body}")
    try:
        rows = read(path)
    except DataError:
        return
    assert all(pair.answer.strip() for pair in rows.pairs)
    for pair in rows.pairs:
        assert pair.answer.replace('"', "").strip("\n\r") in body.replace('"', "")


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
