"""One thin command a stage. Heavy imports stay inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medtune.process import prepare_process

if TYPE_CHECKING:
    from medtune.config import Config
    from medtune.run_dir import RunDir

app = typer.Typer(
    name="medtune",
    help="Fine-tune a chat model for medical question answering with QLoRA, and prove what that changed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Question-answer rows.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

Recipe = Annotated[str, typer.Argument(help="A shipped recipe's name (see `medtune recipes`) or a YAML file.")]
Run = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
RunDirOption = Annotated[
    Path | None, typer.Option("--run-dir", help="Where the run's files go.", show_default="runs/NAME")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a key; repeatable. Values are YAML."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue what is there: complete stages are skipped.")]


@app.command()
def run(recipe: Recipe, run_dir: RunDirOption = None, overrides: Overrides = None, resume: Resume = False) -> None:
    """The whole job: data, baseline, training, evaluation, comparison."""
    config, path = _resolve(recipe, overrides, run_dir)
    prepare_process()
    from medtune import pipeline

    finished = pipeline.run(config, path, resume=resume)
    _show_comparison(finished)
    print(finished.path)


@data_app.command("prepare")
def data_prepare(
    recipe: Recipe, run_dir: RunDirOption = None, overrides: Overrides = None, resume: Resume = False
) -> None:
    """Read, clean and split the rows of a recipe into a run directory."""
    config, path = _resolve(recipe, overrides, run_dir)
    prepare_process()
    from medtune import pipeline

    started = pipeline.start_run(config, path, resume=resume)
    pipeline.prepare_stage(started)
    print(started.path)


@app.command()
def train(run: Run, resume: Resume = False) -> None:
    """Train the adapter of a run whose data is prepared."""
    opened = _open(run)
    prepare_process()
    from medtune import pipeline

    pipeline.train_stage(opened, resume=resume)
    print(opened.adapter_dir)


@app.command()
def evaluate(
    run: Run,
    model: Annotated[str, typer.Option("--model", metavar="baseline|tuned", help="Which model answers the test rows.")],
) -> None:
    """Answer and score the test rows with the base model or with the tuned one."""
    from medtune.errors import ConfigError

    if model not in ("baseline", "tuned"):
        raise ConfigError(f"--model {model}: must be baseline or tuned")
    opened = _open(run)
    prepare_process()
    from medtune import pipeline

    which = "baseline" if model == "baseline" else "tuned"
    pipeline.evaluate_stage(opened, which)  # type: ignore[arg-type]
    print(opened.scores_file(which))  # type: ignore[arg-type]


@app.command()
def compare(run: Run) -> None:
    """Put baseline and tuned scores side by side."""
    opened = _open(run)
    prepare_process()
    from medtune import pipeline

    pipeline.compare_stage(opened)
    _show_comparison(opened)
    print(opened.comparison_file)


@app.command()
def ask(
    target: Annotated[
        str, typer.Argument(metavar="RUN|ADAPTER", help="A run directory, or an adapter's folder or Hub id.")
    ],
    question: Annotated[str | None, typer.Argument(help="The question; leave it out with --file.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Answer with the adapter off.")] = False,
    file: Annotated[Path | None, typer.Option("--file", help="A text file with one question a line.")] = None,
) -> None:
    """Answer a question with the tuned model, as it is written. Not medical advice."""
    from medtune.errors import ConfigError

    if (question is None) == (file is None):
        raise ConfigError('ask: give either a question or --file, such as `medtune ask RUN "What causes gout ?"`')
    prepare_process()
    from medtune.publishing import chat

    questions = [question] if question is not None else chat.read_questions(file) if file is not None else []
    chat.ask(target, questions, use_adapter=not base, out=sys.stdout)


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from medtune.recipes import shipped_recipes

    found = shipped_recipes()
    width = max(map(len, found))
    for name, description in found.items():
        print(f"{name:<{width}}  {description}")


@app.command()
def config(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print the configuration that a recipe resolves to, every key written out."""
    from medtune.recipes import dump_config, load_recipe

    print(dump_config(load_recipe(recipe, overrides or [])), end="")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from medtune import __version__

        print(__version__)
        raise typer.Exit


def _resolve(recipe: str, overrides: list[str] | None, run_dir: Path | None) -> tuple[Config, Path]:
    from medtune.recipes import load_recipe, recipe_name

    return load_recipe(recipe, overrides or []), run_dir or Path("runs") / recipe_name(recipe)


def _open(path: Path) -> RunDir:
    from medtune.run_dir import RunDir

    return RunDir.open(path)


def _show_comparison(finished: RunDir) -> None:
    from rich.console import Console

    from medtune.evaluation.tables import print_comparison
    from medtune.pipeline import comparison

    rows, sentences = comparison(finished)
    console = Console()
    print_comparison(rows, console)
    for sentence in sentences:
        console.print(f"- {sentence}", highlight=False, markup=False)
