"""Files that anyone may have edited: what is sound is read, and of the rest a few words say what is wrong."""

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medtune.storage import reading
from medtune.storage.reading import (
    DamagedError,
    check_type,
    describe_file,
    difference,
    parse_json,
    read_mapping,
    read_parquet,
    read_text,
)


def test_a_file_and_what_was_said_of_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    # sha256sum of "abc", FIPS 180-2
    said = {"bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert describe_file(file) == said
    assert difference(file, said) is None
    for content, how in [
        (b"ab", "has 2 of 3 bytes"),
        (b"abcd", "has 4 bytes, not 3"),
        (b"abd", "is not as it was written"),
    ]:
        file.write_bytes(content)
        os.utime(file, (len(how), len(how)))
        assert difference(file, said) == how
    file.unlink()
    assert difference(file, said) == "is missing"
    file.mkdir()
    assert difference(file, said) == "is missing"


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    digest = reading.hashlib.file_digest
    monkeypatch.setattr(reading.hashlib, "file_digest", lambda *args: reads.append(1) or digest(*args))
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    first = describe_file(file)
    assert describe_file(file) == first
    assert len(reads) == 1
    file.write_bytes(b"xyz")
    os.utime(file, (5, 5))
    assert describe_file(file) != first
    assert len(reads) == 2


@dataclass(frozen=True)
class Row:
    name: str
    counts: list[int]
    note: str | None = None


def test_text_is_read_up_to_a_limit(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("é = 2".encode())
    assert read_text(file, limit=6) == "é = 2"
    with pytest.raises(DamagedError, match=r"^larger than 5 bytes$"):
        read_text(file, limit=5)
    file.write_bytes(b"ab\xff")
    with pytest.raises(DamagedError, match=r"^not UTF-8 text, invalid start byte at byte 2$"):
        read_text(file)
    with pytest.raises(DamagedError, match=r"^cannot be read, Is a directory$"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not JSON (Expecting property name enclosed in double quotes)"),
        ("[" * 100_000, "not JSON (a number too long, or nested too deeply)"),
        ("9" * 5000, "not JSON (a number too long, or nested too deeply)"),
    ],
    ids=["torn", "deep", "long"],
)
def test_what_is_not_json(text, problem):
    with pytest.raises(DamagedError) as caught:
        parse_json(text)
    assert str(caught.value) == problem


def test_a_mapping_is_an_object(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": [1, null]}')
    assert read_mapping(file) == {"a": [1, None]}
    file.write_text("[1]")
    with pytest.raises(DamagedError, match=r"^a list, not an object$"):
        read_mapping(file)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "a", "counts": [1, "many"]}, "counts.1: input should be a valid integer"),
        ({"name": None, "counts": []}, "name: input should be a valid string"),
        ({"counts": []}, "name: field required"),
        ({"name": "a", "counts": [], "note": 3}, "note: input should be a valid string"),
        (3, "input should be a dictionary or an instance of Row"),
    ],
)
def test_the_first_thing_that_does_not_fit_is_named(values, problem):
    with pytest.raises(DamagedError) as caught:
        check_type(Row, values)
    assert str(caught.value).startswith(problem)


def test_what_fits_comes_as_what_was_asked_for():
    assert check_type(Row, {"name": "a", "counts": [1, 2]}) == Row("a", [1, 2])
    assert check_type(list[Row], [{"name": "a", "counts": []}]) == [Row("a", [])]
    assert check_type(tuple[int, int], [1, 2]) == (1, 2)


def test_a_table_is_bounded_by_rows_and_by_what_they_take_once_unpacked(tmp_path):
    file = tmp_path / "a.parquet"
    rows = [{"id": n, "text": "same"} for n in range(3000)]
    pq.write_table(pa.Table.from_pylist(rows), file)
    assert read_parquet(file, 3000, 1 << 20) == rows
    with pytest.raises(DamagedError, match=r"^more than 2,999 rows$"):
        read_parquet(file, 2999, 1 << 20)
    # One value over and over: a few kilobytes on the disk.
    table = pa.table({"text": pa.array(["x" * 1000] * 3000).dictionary_encode(), "none": pa.nulls(3000)})
    pq.write_table(table, file)
    assert file.stat().st_size < 20_000
    assert len(read_parquet(file, 3000, 4_000_000)) == 3000
    with pytest.raises(DamagedError, match=r"^more than 2,000,000 bytes$"):
        read_parquet(file, 3000, 2_000_000)


def test_tables_that_are_none_or_name_a_column_twice(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), file)
    with pytest.raises(DamagedError, match=r"^two columns are called a$"):
        read_parquet(file, 9, 999)
    file.write_bytes(b"PAR1 torn")
    with pytest.raises(DamagedError):
        read_parquet(file, 9, 999)
