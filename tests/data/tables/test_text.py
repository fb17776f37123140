"""Encodings: told by what decodes, or given."""

from __future__ import annotations

import pytest

from medtune.data.tables.text import decode
from medtune.errors import DataError

TEXT = "Question,Answer\nWhat is Ménière\u2019s disease ?,A disorder of the inner ear \u2013 with vertigo.\n"


@pytest.mark.parametrize(
    ("encoding", "mark", "said"),
    [
        ("utf-8", b"", ()),
        ("utf-8-sig", b"", ()),
        ("utf-16-le", b"\xff\xfe", ("encoding UTF-16",)),
        ("utf-16-be", b"\xfe\xff", ("encoding UTF-16",)),
        ("utf-16-le", b"", ("encoding UTF-16-LE",)),
        ("utf-16-be", b"", ("encoding UTF-16-BE",)),
        ("cp1252", b"", ("encoding cp1252, as it is not UTF-8 (invalid continuation byte at byte 25)",)),
    ],
)
def test_an_encoding_is_found_and_said(encoding: str, mark: bytes, said: tuple[str, ...]) -> None:
    """Excel saves CSV in the encoding of Windows: https://github.com/Safiullah-Rahu/CSV-AI/issues/8."""
    assert decode("rows.csv", mark + TEXT.encode(encoding)) == (TEXT, said)


def test_an_encoding_that_is_given_is_taken_and_not_said() -> None:
    assert decode("rows.csv", "Źródło".encode("cp1250"), "cp1250") == ("Źródło", ())
    assert decode("rows.csv", b"\xef\xbb\xbfa", "UTF8") == ("a", ())


@pytest.mark.parametrize(
    ("data", "encoding", "expected"),
    [
        (b"caf\x81", None, "not UTF-8 text (invalid start byte at byte 3); save it as UTF-8, or name "),
        (b"\xff\x00\x01binary", None, "not UTF-8 text (invalid start byte at byte 0); save it as UTF-8"),
        (b"caf\xe9", "utf-8", "not utf-8 text (unexpected end of data at byte 3)"),
        (b"\xff\xfea", None, "not utf-16 text (truncated data at byte 2)"),
    ],
)  # fmt: skip
def test_bytes_of_no_text_are_refused(data: bytes, encoding: str | None, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        decode("rows.csv", data, encoding)
    assert str(caught.value).startswith(f"rows.csv: {expected}")
