"""What a user is shown when something of theirs is wrong: the thing, its problem and the fix, in one line."""

import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Option:
    """An option by the name of its parameter, such as `run_dir`, and the value where it is shown with one.

    As text it is what the command line calls it; a Python call has a spelling of its own.
    """

    name: str
    value: object = None

    def __str__(self) -> str:
        return f"--{self.name.replace('_', '-')}" + ("" if self.value is None else f" {self.value}")


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a fix names, such as `medtune train RUN`. As text it is in backticks."""

    name: str
    target: object = ""
    options: tuple[Option, ...] = ()

    def __str__(self) -> str:
        return f"`{' '.join(filter(None, map(str, ('medtune', self.name, self.target, *self.options))))}`"


# A str or a path, or a tuple of these with options, commands and further tuples.
Text: TypeAlias = object
# How each part of a text is spelled; `str` spells it as the command line does.
Spelling: TypeAlias = Callable[[object], str]


def spell_out(text: Text, spelling: Spelling = str) -> str:
    """A text with its options and commands spelled for the reader."""
    return "".join(spell_out(part, spelling) for part in text) if isinstance(text, tuple) else spelling(text)


@dataclass(frozen=True, slots=True)
class Problem:
    """A thing, what is wrong with it and what to do about it; the last two may be empty."""

    what: Text
    problem: Text = ""
    fix: Text = ""

    @property
    def reason(self) -> Text:
        """All but the fix."""
        return (self.what, ": ", self.problem) if self.problem else self.what

    @property
    def line(self) -> Text:
        """All of it."""
        return (self.reason, "; ", self.fix) if self.fix else self.reason


class MedtuneError(Exception):
    """A problem that the user can fix. The command line prints a line for each of `problems` and exits with status 2.

    Its text is that of the command line until whoever shows it sets another `spelling`.
    """

    def __init__(self, what: Text, problem: Text = "", fix: Text = "") -> None:
        super().__init__(what, problem, fix)
        self.problems: tuple[Problem, ...] = (Problem(what, problem, fix),)
        self.spelling: Spelling = str

    @classmethod
    def together(cls, problems: Iterable[Problem]) -> Self:
        """One error for several problems of the same kind, such as three wrong fields of a recipe."""
        found = tuple(problems)
        error = cls(found[0].what, found[0].problem, found[0].fix)
        error.problems = found
        return error

    def __str__(self) -> str:
        return "\n".join(spell_out(problem.line, self.spelling) for problem in self.problems)


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
    """A recipe, an override or the pair of them does not make a valid configuration."""


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
    """The Hub is busy, broken or out of reach: the same may work later, after `seconds` if it said so.

    `reason` is its problem in a few words.
    """

    def __init__(self, what: Text, problem: Text = "", fix: Text = "", *, reason: str = "", seconds: float = 0) -> None:
        super().__init__(what, problem, fix)
        self.reason, self.seconds = reason, seconds


class DiskError(MedtuneError):
    """A file cannot be written: the disk is full, over a limit, read-only or broken, or permission is lacking.

    Its fix is what to do first. The command line adds the command that resumes.
    """
