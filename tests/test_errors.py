from __future__ import annotations

import pickle

import pytest

from medtune.errors import Command, ConfigError, HubUnavailableError, MedtuneError, Option, Problem, spell_out


def upper(part: object) -> str:
    return part.name.upper() if isinstance(part, Option | Command) else str(part)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("one text",), "one text"),
        (("a.csv", "no rows"), "a.csv: no rows"),
        (("a.csv", "no rows", "add some"), "a.csv: no rows; add some"),
        (("nothing to score", "", "give rows"), "nothing to score; give rows"),
        ((Option("set", "a.b=1"), "no key"), "--set a.b=1: no key"),
        (("x", "y", ("choose another ", Option("run_dir"))), "x: y; choose another --run-dir"),
        (("x", "y", ("a ", ("b ", Option("to")))), "x: y; a b --to"),
    ],
)
def test_the_parts_of_an_error_make_one_line_for_the_command_line(parts: tuple[object, ...], text: str):
    assert str(MedtuneError(*parts)) == text


def test_a_command_is_shown_in_backticks():
    assert str(Command("recipes")) == "`medtune recipes`"
    command = Command("evaluate", "runs/x", (Option("model", "tuned"), Option("resume")))
    assert str(command) == "`medtune evaluate runs/x --model tuned --resume`"


def test_another_spelling_reaches_every_part():
    error = MedtuneError((Option("set"), " x"), ("not with ", Option("to")), ("run ", Command("train", "RUN")))
    error.spelling = upper
    assert str(error) == "SET x: not with TO; run TRAIN"
    assert spell_out(error.problems[0].reason) == "--set x: not with --to"


def test_problems_found_together_are_one_error_with_a_line_each():
    problems = [Problem("a", "wrong", "mend it"), Problem("b", "missing")]
    error = ConfigError.together(iter(problems))
    assert isinstance(error, ConfigError)
    assert error.problems == tuple(problems)
    assert str(error) == "a: wrong; mend it\nb: missing"


def test_an_error_survives_pickling():
    error = HubUnavailableError("repository a/b", "busy", ("add ", Option("resume")), reason="503", seconds=4)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.reason, again.seconds) == ("repository a/b: busy; add --resume", "503", 4)
    assert again.problems == error.problems
