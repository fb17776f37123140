import os
from pathlib import Path

import pytest

from medtune.storage import reading
from medtune.storage.reading import describe_file, difference


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
