"""`medtune doctor`: whether this machine, its software and the Hub can carry a run."""

from __future__ import annotations

from typing import Annotated

import typer

from medtune.cli.options import Overrides, RunDirOption


def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe's name or YAML file, to check what it needs; without one, this machine alone."),
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
