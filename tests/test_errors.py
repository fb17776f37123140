"""An error has parts, which its text joins; messages are one line, whatever an error or a value holds."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from medtune import errors
from medtune.cli import app
from medtune.errors import (
    Command,
    ConfigError,
    HubError,
    HubUnavailableError,
    MedtuneError,
    Option,
    Problem,
    first_line,
    show_value,
    spell_out,
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n\n  no room  \nand more"), "no room"),
        (ValueError(), "ValueError"),
        (KeyError("a\nb"), r"'a\nb'"),
        (ValueError(" \n\t"), "ValueError"),
    ],
)
def test_the_first_line_of_what_a_library_says(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("value", "shown"),
    [("text", "'text'"), (1.5, "1.5"), (None, "None"), ({"a": [1, 2]}, "{'a': [1, 2]}")],
)
def test_a_short_value_is_shown_as_it_is(value, shown):
    assert show_value(value) == shown


LONG = {"text": "x" * 1000, "list": list(range(1000)), "mapping": {str(n): n for n in range(99)}, "digits": 10**5000}


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_a_long_value_takes_eighty_characters_at_most(value):
    assert 0 < len(show_value(value)) <= 80
    assert "\n" not in show_value(value)


def test_a_value_that_grows_by_aliases_is_not_written_out():
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    assert len(show_value(value)) <= 80


def test_every_problem_that_a_user_can_mend_is_caught_as_one():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(kind, MedtuneError) for kind in kinds)


def test_a_hub_out_of_reach_says_when_to_come_back():
    error = HubUnavailableError("busy", fix="try later", reason="429 Too Many Requests", seconds=30)
    assert isinstance(error, HubError)
    assert (str(error), error.reason, error.seconds) == ("busy; try later", "429 Too Many Requests", 30)
    assert HubUnavailableError("gone", reason="timed out").seconds == 0


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


PACKAGE = Path(__file__).resolve().parents[1] / "src" / "medtune"
BELOW = [file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] not in ("cli", "api")]


def option_names(command: object = None) -> Iterator[str]:
    """Long options of every command, as they are typed."""
    command = command or typer.main.get_command(app)
    for parameter in command.params:
        yield from (name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))
    for inner in getattr(command, "commands", {}).values():
        yield from option_names(inner)


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def called(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else None
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def error_names() -> set[str]:
    classes = [node for file in BELOW for node in ast.walk(tree_of(file)) if isinstance(node, ast.ClassDef)]
    names, found = set(), {"MedtuneError"}
    while found - names:
        names |= found
        found = {one.name for one in classes if {base.id for base in one.bases if isinstance(base, ast.Name)} & names}
    return names


def literals(node: ast.AST) -> str:
    return "".join(one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str))


def test_no_error_below_the_edges_has_its_fix_in_one_text():
    errors = error_names() | {"Problem"}
    assert {"DiskError", "DamagedError", "HostMemoryError"} < errors
    calls = [(file, node) for file in BELOW for node in ast.walk(tree_of(file)) if called(node) in errors]
    assert len(calls) > 250
    assert not [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file, node in calls
        if len(node.args) == 1 and not node.keywords and "; " in literals(node.args[0])
    ]


def test_nothing_below_the_edges_spells_an_option_of_the_command_line():
    """Attribute docstrings of the configuration are its documentation, which is about the command line too."""
    known = set(option_names())
    assert {"--run-dir", "--resume", "--set", "--without-evaluation", "--no-measure"} < known
    spelled = []
    for file in BELOW:
        tree = tree_of(file)
        documentation = {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and file.parent.name == "config"
        }
        spelled += [
            f"{file.relative_to(PACKAGE)}:{node.lineno}: {option}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*(?![\w-])", node.value)
            if option in known
        ]
    assert not spelled


def test_every_option_that_is_named_is_one_of_a_command():
    known = set(option_names())
    calls = [node for file in BELOW for node in ast.walk(tree_of(file)) if called(node) == "Option"]
    named = {str(Option(node.args[0].value)) for node in calls if isinstance(node.args[0], ast.Constant)}
    assert named
    assert named <= known
