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
    from medtune.runtime.gpus import GPUS, described_gpu, this_gpu

    config = load_recipe(recipe, overrides or [])
    wanted = described_gpu(gpu) if gpu is not None else None
    prepare_process()
    from rich.console import Console

    from medtune.pipeline import plan as planning
    from medtune.pipeline import plan_tables

    path, console = planning.base_folder(config), Console()
    rows = planning.row_sizes(config)
    if chosen := wanted or this_gpu():
        plan_tables.print_forecast(planning.forecast(config, path, chosen, rows), rows, console)
    else:
        found = {name: planning.forecast_or_reason(config, path, one, rows) for name, one in GPUS.items()}
        plan_tables.print_comparison(found, rows, console)
