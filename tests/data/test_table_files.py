"""Tables of rows on disk: the same rows from every kind, and files that are none refused in one line."""

from __future__ import annotations

import datetime
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.config.sources import ColumnsSection
from medtune.data import table_files
from medtune.data.pairs import row_id
from medtune.data.sources import SourceRows, read_source
from medtune.errors import DataError
from medtune.records import QAPair
from row_files import HEADER, read, refused, write, write_parquet

WHOLE_GZIP = gzip.compress(f"{HEADER}causes,Q,A\n".encode(), mtime=0)


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
        QAPair(row_id("Q1 ?", "naïve — 😀", (), Counter()), "causes", "Q1 ?", "naïve — 😀"),
        QAPair(row_id("", "b", (), Counter()), "x", "", "b"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path: Path, end: str, mark: str) -> None:
    table = write(tmp_path / "rows.csv", f"{mark}{HEADER}t,q,a\n".replace("\n", end))
    lines = write(
        tmp_path / "rows.jsonl", f'{mark}{{"qtype": "t", "Question": "q", "Answer": "a"}}\n\n'.replace("\n", end)
    )
    assert read(table) == read(lines) == SourceRows([QAPair(row_id("q", "a", (), Counter()), "t", "q", "a")])


def test_words_that_pandas_takes_for_gaps_are_words(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", f"{HEADER}NA,null,nan\n1.0,007,1e5\n")
    assert [(p.qtype, p.question, p.answer) for p in read(path).pairs] == [("NA", "null", "nan"), ("1.0", "007", "1e5")]


def test_a_line_separator_inside_a_json_string_ends_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"Question": "q", "Answer": "a\u2028b\x85c"}\n')
    assert read(path).pairs[0].answer == "a\u2028b\x85c"


def test_dictionary_encoded_text(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "rows.parquet", {"Question": pa.array(["q", "q"]).dictionary_encode(), "Answer": ["a", "b"]}
    )
    assert [pair.question for pair in read(path).pairs] == ["q", "q"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rows.csv", "", "not a readable CSV file (it holds no header)"),
        ("rows.csv", "\n\n", "not a readable CSV file (it holds no header)"),
        ("rows.csv", HEADER, "no rows with an answer (0 without)"),
        ("rows.csv", f"{HEADER}t,q,\nt,q,  \n", "no rows with an answer (2 without)"),
        ("rows.csv", f"{HEADER}t,q,a,surplus\n", "its first row has more cells than its header"),
        ("rows.csv", f"{HEADER}t,q,a,\nt,q,a,\n", "its first row has more cells than its header"),
        (
            "rows.csv",
            f"{HEADER}t,q,a\nt,q,a,b\nt,q,a,b\n",
            "2 of its 3 rows have more cells than its header, such as",
        ),
        (
            "rows.csv",
            f'{HEADER}t,q,"never closed\n',
            "a quote in line 2 never closes; close or remove the quote",
        ),
        ("rows.csv", HEADER.encode() + b"t,caf\x81,a\n", "not UTF-8 text (invalid start byte at byte 27)"),
        ("rows.csv", f"{HEADER}t,q,a\n".encode("utf-16")[:-1], "not utf-16 text (truncated data at byte"),
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
        ("rows.jsonl", '[\n{"Question": "q"},\n1]\n', "line 1 is not JSON (Expecting value)"),
        (
            "rows.jsonl",
            '{"Question": "q", "Answer": "a"}\n{"Question": "q"',
            "line 2 is not JSON (Expecting ',' delimiter)",
        ),
        ("rows.jsonl", f'{{"Question": "q", "Answer": "a", "n": {"9" * 5000}}}', "line 1 is not JSON"),
        ("rows.jsonl", "[" * 100_000, "line 1 is not JSON"),
        (
            "rows.jsonl",
            b'{"Question": "caf\x9d", "Answer": "a"}\n',
            "not UTF-8 text (invalid start byte at byte",
        ),
        ("rows.jsonl", '{"Question": 1, "Answer": "a"}\n', "row 0: question is a int, not text; convert that column"),
        ("rows.jsonl", '{"Question": "q", "Answer": ["a", 1]}\n', "row 0: answer is a list with a int, not text"),
        ("rows.jsonl", '{"Question": "q", "Answer": "a", "focus": {}}\n', "row 0: focus is a dict, not text"),
        ("rows.parquet", b"", "not a readable Parquet file"),
        ("rows.parquet", b"PAR1 and then nothing PAR1", "not a readable Parquet file"),
        ("rows.parquet", "Question,Answer\nq,a\n", "not a readable Parquet file"),
        ("rows.txt", "q\ta\n", "unknown kind of file; medtune reads .csv, .csv.gz, .tsv, .tsv.gz, .jsonl, .jsonl"),
        ("rows.json", "[]", "no rows with an answer (0 without)"),
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
        ({"Question": ["q"], "Answer": [[1]]}, "row 0: answer is a list with a int, not text"),
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
