"""`medtune publish`: a run's model on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.options import Run, folder_option, open_run
from medtune.runtime.process import prepare_process


def publish(
    run: Run,
    repo: Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="The Hub's repository; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make it private; a public one is refused.")] = False,
    merged: Annotated[
        Path | None,
        typer.Option(
            "--merged",
            metavar="DIR",
            help="Publish the model that `medtune merge` wrote there instead.",
            callback=folder_option,
        ),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="OWNER/NAME", help="Hub id of a base model that was read from a folder."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go up; needs no token, and writes nothing.")
    ] = False,
    without_evaluation: Annotated[
        bool, typer.Option("--without-evaluation", help="Publish a model that was not evaluated.")
    ] = False,
    without_report: Annotated[
        bool, typer.Option("--without-report", help="Leave out report.html, which holds test rows and answers.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that were edited there, or are not medtune's.")
    ] = False,
) -> None:
    """Put the adapter, its card, scores and report on the Hub.

    At the end it says how to load it. What the repository holds already is not sent again; the same command goes on
    after a failure.
    """
    opened = open_run(run)
    prepare_process()
    from medtune.pipeline.run import refresh_report
    from medtune.publishing import publish as publishing
    from medtune.runtime.progress import say

    wanted: dict[publishing.PublishOption, bool] = {
        "without-evaluation": without_evaluation,
        "without-report": without_report,
        "overwrite": overwrite,
    }
    if not dry_run:
        refresh_report(opened, again=False)
    elif opened.is_complete("compare") and not opened.is_complete("report") and not without_report:
        say(
            "report.html is not there yet, or outdated: without --dry-run it is written first and goes along, with "
            "test rows and answers, unless --without-report is given"
        )
    done = publishing.publish(
        opened,
        repo,
        private=private,
        merged=merged,
        base_model=base_model,
        dry_run=dry_run,
        options=[name for name, given in wanted.items() if given],
    )
    if not dry_run:
        say("to load it:")
        print(done.python)
        print(done.url)
