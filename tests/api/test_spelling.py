from __future__ import annotations

import inspect

import pytest

import medtune
from medtune.api.runs import Run
from medtune.api.spelling import as_call, spelled_as_calls
from medtune.errors import Command, MedtuneError, Option, spell_out


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Option("run_dir"), "run_dir"),
        (Option("resume"), "resume=True"),
        (Option("without_evaluation"), "options=['without-evaluation']"),
        (Option("metric", "nosuch"), "metrics nosuch"),
        (Option("set"), "overrides"),
        (Option("set", "training.epochs=2"), "overrides=['training.epochs=2']"),
        (Command("data prepare"), "`medtune.prepare()`"),
        (Command("evaluate", "runs/x", (Option("model", "tuned"),)), "`medtune.evaluate('runs/x', model='tuned')`"),
        (
            Command("run", "RECIPE", (Option("run_dir", "runs/x"), Option("resume"))),
            "`medtune.run('RECIPE', run_dir='runs/x', resume=True)`",
        ),
        (Command("merge", "RUN", (Option("to", "DIR"),)), "`medtune.load_run('RUN').merge(to='DIR')`"),
        (Command("recipes"), "`medtune recipes`"),
        ("text", "text"),
    ],
)
def test_how_a_call_spells_it(part: object, text: str):
    assert as_call(part) == text


def test_what_is_spelled_is_an_argument_of_a_function():
    taken = {name for call in (medtune.run, medtune.compare, medtune.plan, Run.merge, Run.publish, Run.ask)
             for name in inspect.signature(call).parameters}  # fmt: skip
    options = ("run_dir", "resume", "set", "metric", "bertscore_model", "resamples", "gpu", "to", "dtype", "measure",
               "base", "base_model", "merged", "private", "overwrite", "without_evaluation", "repo")  # fmt: skip
    assert {as_call(Option(name)).partition("=")[0] for name in options} <= taken


def test_an_error_that_leaves_a_function_is_spelled_for_its_caller():
    @spelled_as_calls()
    def fail() -> None:
        raise MedtuneError("x", "not empty", ("add ", Option("resume")))

    with pytest.raises(MedtuneError, match=r"^x: not empty; add resume=True$") as caught:
        fail()
    assert spell_out(caught.value.problems[0].fix) == "add --resume"


def test_a_recipe_and_a_run_are_refused_in_words_of_python(workplace):
    with pytest.raises(MedtuneError, match=r"^overrides=\['epochs'\]: must read key.path=value, such as overrides=\["):
        medtune.load_recipe("demo", ["epochs"])
    with pytest.raises(MedtuneError, match=r"; make one with `medtune.run\('RECIPE'\)`$"):
        medtune.load_run("nosuch")
