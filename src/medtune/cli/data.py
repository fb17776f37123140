"""`medtune data …`: rows, before any model sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.options import Overrides, Recipe, Resume, RunDirOption, check_place, resolve_recipe
from medtune.runtime.process import prepare_process

data_app = typer.Typer(help="Question-answer rows.", no_args_is_help=True, rich_markup_mode=None)


@data_app.command("prepare")
def data_prepare(
    recipe: Recipe, run_dir: RunDirOption = None, overrides: Overrides = None, resume: Resume = False
) -> None:
    """Read, clean and split the rows of a recipe into a run directory."""
    config, path = resolve_recipe(recipe, overrides, run_dir)
    check_place(path, config, resume=resume)
    prepare_process()
    from medtune.pipeline.run import perform, start_run

    started = start_run(config, path, resume=resume)
    perform("data", started)
    print(started.path)


@data_app.command("audit")
def data_audit(
    source: Annotated[str, typer.Argument(help="What `data.source` takes: a Hub data set, a table, a folder of XML.")],
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Columns, split and model of this recipe; without it, the defaults.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the audit there as JSON.")] = None,
) -> None:
    """What rows hold and what their split leaks: counts, lengths, duplicates, conflicts, truncation."""
    from medtune.config.recipes import load_for_source
    from medtune.errors import ConfigError

    config = load_for_source(source, recipe, overrides or [])
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise ConfigError(f"--out {out}", "must be a file in a folder that exists")
    prepare_process()
    from rich.console import Console

    from medtune.data.audit import write_audit
    from medtune.data.audit_tables import print_audit
    from medtune.data.large.source_files import streamed_files
    from medtune.data.preparation import prepare_data
    from medtune.data.token_lengths import audit_prepared
    from medtune.model.loaded import renderer_of
    from medtune.pipeline.prepare_streamed import audit_files
    from medtune.runtime.terminal import print_points

    renderer = renderer_of(config) if recipe is not None else None
    if files := streamed_files(config.data):
        audit, warnings = audit_files(config, files, renderer)
    else:
        prepared = prepare_data(config, must_split=False)
        audit, warnings = audit_prepared(prepared, config, renderer), prepared.report.get("warnings", [])
    if out is not None:
        write_audit(audit, out)
    print_audit(audit, Console())
    print_points((f"Warning: {warning}" for warning in warnings), Console())


@data_app.command("show")
def data_show(
    recipe: Recipe,
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="How many training rows.")] = 3,
    row_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The row of this id instead.")] = None,
    overrides: Overrides = None,
) -> None:
    """Print rows as the model sees them, the tokens that the loss looks at in colour."""
    from medtune.config.recipes import load_recipe

    config = load_recipe(recipe, overrides or [])
    prepare_process()
    from rich.console import Console

    from medtune.data.preparation import prepare_data
    from medtune.data.shown_rows import print_rows, rows_to_show
    from medtune.model.loaded import renderer_of

    renderer = renderer_of(config)
    shown = rows_to_show(prepare_data(config), config, renderer, count=rows, row_id=row_id)
    print_rows(shown, renderer, Console())
