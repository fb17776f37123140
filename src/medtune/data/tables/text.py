"""Bytes to text: which encoding a file is in, told by what decodes."""

import codecs
import re

from medtune.errors import DataError, Option

# What Windows programs write for English and its neighbours. Every byte but five is a character of it, so it is tried
# last, and not believed where the text would hold control characters, as a file of another kind does.
_FALLBACK = "cp1252"
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f]")
# Half of the bytes of English text in UTF-16 are NULs, all in places of one parity.
_SAMPLE = 4096
_MOST, _FEW = 0.3, 0.02


def decode(origin: str, data: bytes, encoding: str | None = None) -> tuple[str, tuple[str, ...]]:
    """The text of `data`, and what to say of its encoding, if it is not UTF-8.

    UTF-8 and UTF-16 are told by their byte order mark or by what decodes, and the rest is taken for cp1252. Raises
    DataError for bytes that are no text in `encoding`, or in any of these.
    """
    if encoding is not None:
        return _decode_as(origin, data, encoding), ()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode_as(origin, data, "utf-16"), ("encoding UTF-16",)
    if guess := _utf16_without_mark(data):
        return _decode_as(origin, data, guess), (f"encoding {guess.upper()}",)
    try:
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
    text = _decoded(data, _FALLBACK)
    if text is None or _CONTROLS.search(text):
        fix = ("save it as UTF-8, or name its encoding, such as ", Option("set", "data.table.encoding=latin-1"))
        raise DataError(origin, f"not UTF-8 text ({reason})", fix)
    return text, (f"encoding {_FALLBACK}, as it is not UTF-8 ({reason})",)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _decode_as(origin: str, data: bytes, encoding: str) -> str:
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    try:
        return data.decode("utf-8-sig" if is_utf8 else encoding)
    except UnicodeDecodeError as error:
        problem = f"not {encoding} text ({error.reason} at byte {error.start})"
        fix = ("save it as UTF-8, or name its encoding in ", Option("set", "data.table.encoding=…"))
        raise DataError(origin, problem, fix) from None


def _utf16_without_mark(data: bytes) -> str | None:
    """The order of the bytes of UTF-16 text without a mark, by where its NULs are; None for anything else."""
    sample = data[:_SAMPLE]
    if len(sample) < 4 or len(data) % 2:
        return None
    half = len(sample) // 2
    even, odd = sample[::2].count(0) / half, sample[1::2].count(0) / half
    if odd >= _MOST and even <= _FEW:
        return "utf-16-le"
    return "utf-16-be" if even >= _MOST and odd <= _FEW else None
