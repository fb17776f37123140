"""One thin command a stage. Heavy imports stay inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medtune.cli import scores
from medtune.cli.chat import chat as chat_command
from medtune.cli.data import data_app
from medtune.cli.human import human_app
from medtune.cli.models import export, measure, merge, publish
from medtune.cli.options import (
    Gpus,
    OnCpu,
    Overrides,
    Recipe,
    Resume,
    Run,
    RunDirOption,
    Target,
    check_place,
    launch_several,
    open_run,
    perform_stage,
    print_once,
    resolve_recipe,
    say_next,
)
from medtune.cli.outlook import doctor, plan
from medtune.cli.serving import serve
from medtune.runtime.distributed import joined
from medtune.runtime.launch import is_main, require_single_process
from medtune.runtime.process import prepare_process
from medtune.runtime.progress import listened_to_by_file

app = typer.Typer(
    name="medtune",
    help="""Fine-tune a chat model for medical question answering with QLoRA, and prove what that changed.

    Begin with `medtune run demo`: a tiny model, minutes on any CPU. `medtune COMMAND --help` tells more, and
    `medtune --install-completion` lets your shell complete commands and recipes.""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command
    rich_markup_mode=None,
)


def run(
    recipe: Recipe,
    run_dir: RunDirOption = None,
    overrides: Overrides = None,
    resume: Resume = False,
    on_cpu: OnCpu = False,
    gpus: Gpus = None,
    details: Annotated[
        bool, typer.Option("--details", help="Print all tables and the reading, as `medtune compare RUN` does.")
    ] = False,
) -> None:
    """The whole job: data, baseline, training, comparison, report.

    It ends with the verdict in a few lines and the report's path.
    """
    launch_several(gpus, on_cpu=on_cpu)
    config, path = resolve_recipe(recipe, overrides, run_dir)
    with joined(), listened_to_by_file():
        check_place(path, config, resume=resume)
        prepare_process()
        from medtune.evaluation.result_files import read_comparison
        from medtune.pipeline.run import run as run_all

        finished = run_all(config, path, resume=resume, on_cpu=on_cpu)
        if is_main():
            comparison = read_comparison(finished)
            if details:
                scores.show_comparison(comparison)
            scores.show_ending(comparison, finished)
            say_next(finished.path, [finished.path])


def train(run: Run, resume: Resume = False, on_cpu: OnCpu = False, gpus: Gpus = None) -> None:
    """Train the adapter of a run whose data is prepared."""
    launch_several(gpus, on_cpu=on_cpu)
    with joined():
        if not on_cpu and is_main():
            prepare_process()
            from medtune.pipeline.checks import require_gpu

            opened = open_run(run)
            require_gpu(opened.config, opened)
        print_once(perform_stage("train", run, resume=resume).adapter_dir)


def report(run: Run) -> None:
    """Write report.html and the model card of a run again.

    Ratings and a merge that have come since the run are in them then. The run has to be compared.
    """
    print(perform_stage("report", run, again=True).report_file)


def ask(
    target: Target,
    question: Annotated[str | None, typer.Argument(help="The question; leave it out with --file.")] = None,
    base: Annotated[bool, typer.Option("--base", help="Answer with the adapter off.")] = False,
    file: Annotated[Path | None, typer.Option("--file", help="A text file with one question a line.")] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens", min=1, max=32768, metavar="N", help="Cap on an answer; the run's unless given."
        ),
    ] = None,
) -> None:
    """Answer a question with the tuned model. Not medical advice."""
    from medtune.errors import ConfigError

    if (question is None) == (file is None):
        raise ConfigError("ask", 'give either a question or --file, such as `medtune ask RUN "What causes gout ?"`')
    prepare_process()
    from medtune.inference import chat

    questions = [question] if question is not None else chat.read_questions(file) if file is not None else []
    chat.ask(target, questions, use_adapter=not base, out=sys.stdout, max_new_tokens=max_new_tokens)


def recipes(
    brief: Annotated[bool, typer.Option("--brief", help="Print their names alone, a line for each machine.")] = False,
) -> None:
    """List the shipped recipes by the machine that they are for."""
    from medtune.config.recipes.groups import brief_lines, recipe_lines

    print("\n".join(brief_lines() if brief else recipe_lines()))


def config(recipe: Recipe, overrides: Overrides = None) -> None:
    """Print what a recipe resolves to, every key written out."""
    from medtune.config.recipes import load_recipe
    from medtune.config.recipes.yaml_text import dump_config

    print(dump_config(load_recipe(recipe, overrides or [])), end="")


# As `--help` lists them: what to look at first, the whole job, its stages, what becomes of it.
for command in (
    recipes, doctor, plan, config, run, train, scores.evaluate, scores.compare, report, ask, chat_command, serve,
    merge, measure, export, publish, scores.score,
):  # fmt: skip
    app.command()(command)
app.add_typer(data_app, name="data")
app.add_typer(human_app, name="human")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from medtune import __version__

        print(__version__)
        raise typer.Exit
    command = context.invoked_subcommand
    if command not in (None, "run", "train", "evaluate") and not {"-h", "--help"} & set(sys.argv):
        require_single_process(f"`medtune {command}`")
