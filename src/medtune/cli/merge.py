"""`medtune merge`: the tuned model in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.options import Run, folder_option, open_run, say_next
from medtune.runtime.process import prepare_process


def merge(
    run: Run,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="A new folder for the merged model.", callback=folder_option)
    ],
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="bfloat16|float16|float32", help="What its weights are stored in.")
    ] = "bfloat16",
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--no-measure",
            help="Whether to measure what merging changed; by itself where that takes minutes.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Merge the adapter into its base, and measure what that changes.

    The base is the 16-bit one, the result a folder for transformers. A merge that is there already is only measured.
    """
    opened = open_run(run)
    prepare_process()
    from medtune.pipeline.merge import merge_stage
    from medtune.pipeline.run import refresh_after_merge
    from medtune.publishing.merge_record import merge_sentences
    from medtune.runtime.terminal import harmless

    record = merge_stage(opened, to, dtype=dtype, measure=measure)  # type: ignore[arg-type]
    refresh_after_merge(opened)
    from rich.console import Console

    console = Console()
    for sentence in merge_sentences(record, evaluated=opened.is_complete("tuned")):
        console.print(f"- {harmless(sentence)}", highlight=False, markup=False)
    if record.measured is None or record.measured.within_bound:
        can_publish = opened.is_complete("train") and opened.is_complete("compare")
        say_next(to, [run, "--merged", to] if can_publish else [])
    print(to)
