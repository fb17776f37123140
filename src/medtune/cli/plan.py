"""`medtune plan`: what a recipe would take on a GPU, before there is one."""

from __future__ import annotations

from typing import Annotated

import typer

from medtune.cli.options import Overrides, Recipe
from medtune.runtime.process import prepare_process


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
    overrides: Overrides = None,
) -> None:
    """Predict memory and time of a recipe on a GPU.

    The GPU need not be here, and no weights are read: of the model its configuration and tokenizer, and the rows.
    """
    from medtune.config.recipes import load_recipe

    config = load_recipe(recipe, overrides or [])
    prepare_process()
    from rich.console import Console

    from medtune.pipeline.plan import forecasts
    from medtune.pipeline.plan_tables import print_plan

    print_plan(*forecasts(config, gpu), Console())
