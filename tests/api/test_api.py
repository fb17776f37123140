"""Every public function's example runs, and so does every block of the Python page."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pandas
import pytest

import medtune
from medtune.api.runs import Run

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "python-api.md"
# What one makes is there for the next.
FUNCTIONS = [
    "load_recipe",
    "run",
    "load_run",
    "prepare",
    "train",
    "evaluate",
    "export",
    "compare",
    "score",
    "doctor",
    "measure",
    "plan",
    "chat",
    "serve",
]
# Gradio makes event loops that it never closes; `collected` has them reported there and not in a later test.
of_gradio = pytest.mark.filterwarnings("ignore::ResourceWarning")
MEMBERS = sorted(name for name in vars(Run) if not name.startswith("_") and name != "path")


def failures_of(name: str, text: str) -> str:
    names: dict[str, Any] = {"medtune": medtune, "pandas": pandas, "load_recipe": medtune.load_recipe}
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    assert test.examples, f"{name} has no example"
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(test, out=failures.append)
    return "".join(failures)


def test_every_public_function_has_an_example_here():
    public = {name for name in medtune.__all__ if inspect.isfunction(getattr(medtune, name))}
    assert public == set(FUNCTIONS)


@of_gradio
def test_examples_of_functions(workplace: Path, collected: None):
    for name in FUNCTIONS:
        assert not failures_of(name, inspect.getdoc(getattr(medtune, name)) or "")


@pytest.mark.parametrize("name", MEMBERS)
def test_examples_of_runs(finished: Run, name: str):
    assert not failures_of(f"Run.{name}", inspect.getdoc(inspect.getattr_static(Run, name)) or "")


@pytest.mark.slow
@of_gradio
def test_the_page_runs_from_top_to_bottom(finished: Run, collected: None):
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)


def test_readmes_example_works_right_after_the_demo(finished: Run, capsys: pytest.CaptureFixture[str]):
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    exec(compile(block, "README.md", "exec"), {})
    assert "Baseline and tuned on the same" in capsys.readouterr().out


def test_the_page_names_everything():
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in FUNCTIONS if f"medtune.{name}(" not in text]
    missing += [name for name in MEMBERS if f".{name}" not in text]
    assert not missing
