"""`medtune doctor` and `medtune plan`: what would keep a run from working, and what it would take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.options import Overrides, Recipe, RunDirOption, complete_recipe, folder_option
from medtune.runtime.process import prepare_process


def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe's name or YAML file, to check what it needs; without one, this machine alone.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    run_dir: RunDirOption = None,
    overrides: Overrides = None,
) -> None:
    """Look for what would keep a run from working. Exit status 2 if something would, else 0."""
    from medtune.errors import ConfigError

    if recipe is None and (overrides or run_dir is not None):
        raise ConfigError("doctor", "--set and --run-dir belong to a recipe", "name one, such as `medtune doctor demo`")
    from rich.console import Console

    from medtune.pipeline.doctor import examine
    from medtune.pipeline.doctor.findings import print_finding, secrets, summary, without_secrets

    console, found, hidden = Console(), [], secrets()
    for finding in examine(recipe, overrides or [], run_dir):
        found.append(finding)
        print_finding(without_secrets(finding, hidden), console)
    print(summary(found))
    if any(finding.state == "failure" for finding in found):
        raise typer.Exit(2)


def plan(
    recipe: Recipe,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar="NAME|GIB",
            help="t4, l4, a100-40, a100-80, h100, h200, or GiB of memory; without it the GPU that is here, or else all "
            "of these side by side.",
        ),
    ] = None,
    gpus: Annotated[
        int,
        typer.Option("--gpus", metavar="N", min=1, help="So many of that GPU, a process each; the plan is for one."),
    ] = 1,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run-dir", help="A run whose baseline tells what the test set can show.", callback=folder_option
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Predict memory, time and power of a recipe on a GPU.

    Power is the smallest difference that its test set can show.

    The GPU need not be here, and no weights are read: of the model its configuration and tokenizer, and the rows. For
    the shipped recipes both come with the package, so that nothing is downloaded.
    """
    from medtune.config.recipes import load_recipe
    from medtune.runtime.gpus import described_gpu

    config = load_recipe(recipe, overrides or [])
    if gpu is not None:  # before all that takes seconds to load
        described_gpu(gpu)
    prepare_process()
    from rich.console import Console

    from medtune.pipeline.plan import forecasts
    from medtune.pipeline.plan_power import expected_power
    from medtune.pipeline.plan_tables import print_plan

    found, rows = forecasts(config, gpu, gpus)
    print_plan(found, rows, Console(), expected_power(config, rows, run_dir))
