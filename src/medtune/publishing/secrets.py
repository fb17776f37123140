"""Secrets in files that are about to be published: where they are and of what kind, never what they are."""

import base64
import binascii
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from medtune.errors import Problem
from medtune.runtime.terminal import one_line

# What services give out, by its form.
_FORMS: Mapping[str, re.Pattern[str]] = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an AWS secret key": re.compile(r"(?i)aws_secret_access_key\W{1,6}[A-Za-z0-9/+=]{40}"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{50})"),
    "a Weights & Biases key": re.compile(
        r"(?i)(?:wandb[_-]?(?:api[_-]?)?(?:key|token)\W{1,6}|api\.wandb\.ai\s[^\n]{0,60}password\s+)[0-9a-f]{40}\b"
    ),
    "a key of OpenAI's or Anthropic's form": re.compile(r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    "a password in an address": re.compile(
        r"\b[a-z][a-z0-9+.-]{1,15}://[^\s/:@\"'<>]{1,100}:[^\s/@\"'<>]{1,100}@[\w.-]"
    ),
}
# Variables whose names say that their values are secret, however those look. Shorter values are words.
_SECRET_NAME = re.compile(r"(?i)(?:token|key|secret|password|passwd)$")
_SHORTEST = 12
_MAX_HEADER_BYTES = 100 << 20
# Line ends and the like as JSON writes them, which would make a word of what follows.
_ESCAPES = re.compile(r"\\[nrtbf]")
# Gzipped text in base64, as the report holds its answers.
_PACKED = re.compile(r"\bH4sI[A-Za-z0-9+/]{16,}={0,2}")
_MAX_UNPACKED_BYTES = 1 << 30


def find_secrets(name: str, file: Path) -> Iterator[Problem]:
    """A problem for each secret, with its line in the file called `name`. Only the header of weights is text."""
    # Every secret is ASCII, and Latin-1 decodes whatever a file holds.
    text = _readable_part(file).decode("latin-1")
    places = [(position, kind, "") for position, kind in _places(text).items()]
    for packed in _PACKED.finditer(text):
        places += [(packed.start(), kind, ", packed") for kind in sorted({*_places(_unpacked(packed[0])).values()})]
    for position, kind, how in sorted(places):
        line = text.count("\n", 0, position) + 1
        yield Problem(
            one_line(name), f"holds {kind} in line {line}{how}", "take it out, and replace it where it is used"
        )


def _places(text: str) -> dict[int, str]:
    """Where secrets begin, and of what kind they are."""
    places: dict[int, str] = {}
    for kind, value in _own_secrets():
        for match in re.finditer(re.escape(value), text):
            places.setdefault(match.start(), kind)
    spaced = _ESCAPES.sub("  ", text)
    for kind, form in _FORMS.items():
        for match in form.finditer(spaced):
            places.setdefault(match.start(), kind)
    return places


def _unpacked(packed: str) -> str:
    """The text, as far as it can be unpacked: of what cannot nobody reads more."""
    try:
        content = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(
            base64.b64decode(packed), _MAX_UNPACKED_BYTES
        )
    except (binascii.Error, zlib.error):
        return ""
    return content.decode("latin-1")


def _own_secrets() -> Iterator[tuple[str, str]]:
    """This user's token and the secrets of the environment."""
    from huggingface_hub import get_token

    token = get_token()
    if token and len(token) >= _SHORTEST:
        yield "this user's token of the Hub", token
    for variable, value in os.environ.items():
        if _SECRET_NAME.search(variable) and len(value) >= _SHORTEST and value.isascii():
            yield f"the value of {one_line(variable)}", value


def _readable_part(file: Path) -> bytes:
    with file.open("rb") as content:
        if file.suffix != ".safetensors":
            return content.read()
        length = int.from_bytes(content.read(8), "little")
        return content.read(min(length, _MAX_HEADER_BYTES))
