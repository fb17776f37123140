"""`medtune human …`: a blinded sheet for people to rate, and what their ratings say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.options import Run, open_run

human_app = typer.Typer(help="Blinded ratings by people.", no_args_is_help=True, rich_markup_mode=None)


@human_app.command("export")
def human_export(
    run: Run,
    n: Annotated[int, typer.Option("--n", help="How many test rows to rate, in each question type's share.")] = 50,
    seed: Annotated[int | None, typer.Option("--seed", help="Chooses the rows.", show_default="the run's seed")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="An empty or new folder for the files.", show_default="RUN/human")
    ] = None,
) -> None:
    """Write both models' answers as a blinded A/B sheet, a page to rate in a browser, and the key to them."""
    opened = open_run(run)
    from medtune.evaluation.human.export import export_sheet
    from medtune.runtime.progress import say

    export = export_sheet(opened, n, seed, out)
    say(f"{export.items} items to rate; give raters {export.page.name} or {export.sheet.name} and nothing else")
    if export.identical:
        say(f"{export.identical} of them hold the same text twice; they count as ties once they are rated")
    say(f"{export.key} opens the ratings: keep it, and the run, from the raters")
    print(export.page)
    print(export.sheet)


@human_app.command("score")
def human_score(
    files: Annotated[
        list[Path], typer.Argument(help="Filled sheets or the page's exports, of any raters.", show_default=False)
    ],
    key: Annotated[
        Path | None, typer.Option("--key", help="The key, or its run or folder.", show_default="beside FILES")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the JSON goes.", show_default="scores.json beside the key")
    ] = None,
) -> None:
    """Unblind ratings: win rate, criteria and agreement between raters. Not medical advice."""
    from rich.console import Console

    from medtune.evaluation.human.rating_tables import print_scores
    from medtune.evaluation.human.results import find_key, score_files, write_scores

    key_file = find_key(files, key)
    scores = score_files(files, key_file)
    written = write_scores(scores, key_file, out)
    print_scores(scores, Console())
    print(written)
