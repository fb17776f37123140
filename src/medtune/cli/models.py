"""`medtune merge`, `measure`, `export` and `publish`: the tuned model in one piece, for others, and on the Hub."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from medtune.cli.options import Run, folder_option, open_run, say_next, spread
from medtune.runtime.process import prepare_process

Repo = Annotated[str, typer.Option("--repo", metavar="OWNER/NAME", help="The Hub's repository; made if need be.")]
Private = Annotated[bool, typer.Option("--private", help="Make it private; a public one is refused.")]
_MERGED_HELP = "Publish the model that `medtune merge` wrote there instead."
Merged = Annotated[Path | None, typer.Option("--merged", metavar="DIR", help=_MERGED_HELP, callback=folder_option)]
_BASE_HELP = "Hub id of a base model that was read from a folder."
BaseModel = Annotated[str | None, typer.Option("--base-model", metavar="OWNER/NAME", help=_BASE_HELP)]
_DRY_RUN_HELP = "Only show what would go up; needs no token, and writes nothing."
DryRun = Annotated[bool, typer.Option("--dry-run", help=_DRY_RUN_HELP)]
_EVALUATION_HELP = "Publish a model that was not evaluated."
_REPORT_HELP = "Leave out report.html, which holds test rows and answers."
_OVERWRITE_HELP = "Replace files that were edited there, or are not medtune's."


@dataclass(frozen=True)
class Switches:
    """What `medtune publish` does only when it is told to."""

    without_evaluation: Annotated[bool, typer.Option("--without-evaluation", help=_EVALUATION_HELP)] = False
    without_report: Annotated[bool, typer.Option("--without-report", help=_REPORT_HELP)] = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help=_OVERWRITE_HELP)] = False


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
    from medtune.runtime.terminal import harmless, print_points

    record = merge_stage(opened, to, dtype=dtype, measure=measure)  # type: ignore[arg-type]
    refresh_after_merge(opened)
    from rich.console import Console

    print_points(map(harmless, merge_sentences(record, evaluated=opened.is_complete("tuned"))), Console())
    if record.measured is None or record.measured.within_bound:
        can_publish = opened.is_complete("train") and opened.is_complete("compare")
        say_next(to, [run, "--merged", to] if can_publish else [])
    print(to)


def measure(run: Run, folder: Annotated[Path, typer.Argument(help="The model's folder.", show_default=False)]) -> None:
    """Measure what quantising a merged model changed.

    The folder holds it dequantised, or packed as compressed-tensors by llm-compressor. It gets the same 64 test
    questions as a merge; nothing is written.
    """
    opened = open_run(run)
    prepare_process()
    from rich.console import Console

    from medtune.pipeline.merge import measure_folder
    from medtune.publishing.merge_record import measured_sentences
    from medtune.runtime.terminal import harmless, print_points

    found = measure_folder(opened, folder)
    sentences = measured_sentences(found, evaluated=opened.is_complete("tuned"), public=True)
    print_points(map(harmless, sentences), Console())


def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A folder for the export.", callback=folder_option)],
    format: Annotated[str, typer.Option("--format", metavar="ollama|gguf|vllm", help="The program that it is for.")],
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="f16|bf16|q8_0|f32", help="What a GGUF file's weights are stored in.")
    ] = "f16",
    merged: Annotated[
        Path | None,
        typer.Option(
            "--merged",
            metavar="DIR",
            help="The model that `medtune merge` wrote there; else it is merged into DIR/merged.",
            callback=folder_option,
        ),
    ] = None,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Export the adapter, for use beside its base (gguf, vllm).")
    ] = False,
) -> None:
    """Write the tuned model for Ollama, llama.cpp (GGUF) or vLLM.

    Chat template, end tokens, cap and system prompt go along; at the end it says how to run it.
    """
    opened = open_run(run)
    prepare_process()
    from medtune.pipeline.export import ExportRequest, export_stage
    from medtune.runtime.progress import say

    request = ExportRequest(to, format, dtype, merged, adapter_only)  # type: ignore[arg-type]
    record = export_stage(opened, request)
    say(f"next: {' && '.join([f'cd {shlex.quote(str(to))}', *record.commands[:1]])}", verbatim=True)
    for command in record.commands[1:]:
        say(f"      {command}", verbatim=True)
    print(to)


@spread
def publish(
    run: Run,
    repo: Repo,
    private: Private = False,
    merged: Merged = None,
    base_model: BaseModel = None,
    dry_run: DryRun = False,
    switches: Switches = Switches(),
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
        "without-evaluation": switches.without_evaluation,
        "without-report": switches.without_report,
        "overwrite": switches.overwrite,
    }
    if not dry_run:
        refresh_report(opened, again=False)
    elif opened.is_complete("compare") and not opened.is_complete("report") and not switches.without_report:
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
