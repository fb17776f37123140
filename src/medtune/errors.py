"""What a user is shown when something of theirs is wrong: one line that names the thing and the fix."""

from __future__ import annotations

import reprlib
from typing import Any


class MedtuneError(Exception):
    """A problem the user can mend. The command line prints each line of its text and exits with status 2.

    Lines after the first are further problems of the same kind, found together (a config with three wrong fields).
    """


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def show_value(value: Any) -> str:
    """A value for a message, in 80 characters at the most."""
    # Not repr: YAML aliases make a value whose text is exponentially longer than the file.
    shortener = reprlib.Repr()
    shortener.maxlevel, shortener.maxstring, shortener.maxother = 2, 80, 80
    try:
        shown = shortener.repr(value)
    except ValueError:  # hexadecimal is read at any length, and shown in 4,300 digits at the most
        shown = "a number of too many digits"
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


class ConfigError(MedtuneError):
    """A recipe, a `--set` override or the pair of them does not make a valid configuration."""


class DataError(MedtuneError):
    """A data source cannot be read, lacks a column, or leaves nothing to train on or to score."""


class ModelError(MedtuneError):
    """A base model, tokenizer or adapter is missing, gated, unreachable or unfit for the job."""


class RunDirError(MedtuneError):
    """A run directory is not empty, is incomplete, or was made with another configuration."""


class PublishError(MedtuneError):
    """What would be published must not be as it is: its weights, its texts, its name, or what it would replace."""


class HubError(MedtuneError):
    """The Hub refuses a repository or an upload, or what it holds there does not fit."""


class HubUnavailableError(HubError):
    """The Hub is busy, broken or out of reach: the same may work later, after `seconds` if it said so."""

    def __init__(self, message: str, reason: str, seconds: float = 0):
        super().__init__(message)
        self.reason, self.seconds = reason, seconds


class DiskError(MedtuneError):
    """A file cannot be written: the disk is full, over a limit, read-only or broken, or permission is lacking.

    Its text ends with what to do first. The command line adds the command that goes on.
    """
