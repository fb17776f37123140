"""What the report is made of, read from a run directory and checked on the way in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medtune.config.schema import Config
from medtune.data.audit_record import Audit
from medtune.errors import RunDirError
from medtune.evaluation.comparison import require_same_rows
from medtune.evaluation.human.agreement import RaterAgreement
from medtune.evaluation.human.human_scores import CriterionScore
from medtune.evaluation.human.results import SCORES_FILE
from medtune.evaluation.result_files import read_comparison, read_measured
from medtune.publishing.card_sections import merge_lines
from medtune.publishing.public_names import public_config, public_names
from medtune.records import Comparison, ModelName, Prediction
from medtune.run_dir.artefacts import DataReport
from medtune.run_dir.directory import RunDir
from medtune.storage.reading import DamagedError, check_type

# Metrics that a single answer has a value of.
ROW_METRICS = ("rougeL", "bertscore_f1")


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the training history: a step's or a validation's."""

    step: int
    loss: float | None = None
    validation_loss: float | None = None
    learning_rate: float | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class HumanRatings:
    """What `human/scores.json` says of ratings by people; who they are is left out."""

    reading: list[str]
    criteria: dict[str, CriterionScore]
    agreement: dict[str, RaterAgreement] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReportData:
    """All that the page shows of one run.

    `config` is as it may be published. `row_scores` maps a model to metric → a value for every row, in the order of its
    predictions. `merge` says what merging the adapter changed, where that was done, and `rows` how the
    rows were read.
    """

    comparison: Comparison
    config: Config
    provenance: Mapping[str, Any]
    history: tuple[Step, ...]
    audit: Audit
    predictions: Mapping[ModelName, list[Prediction]]
    row_scores: Mapping[ModelName, Mapping[str, list[float]]]
    human: HumanRatings | None = None
    merge: tuple[str, ...] = ()
    rows: DataReport = field(default_factory=DataReport)


def read_report(run: RunDir) -> ReportData:
    """Everything that the page shows. Raises RunDirError if the run is not compared, or a file of it is damaged."""
    comparison = read_comparison(run)
    models: tuple[ModelName, ...] = ("baseline", "tuned")
    predictions = {model: run.read_predictions(model) for model in models}
    require_same_rows(predictions["baseline"], predictions["tuned"])
    human_file = run.human_dir / SCORES_FILE
    return ReportData(
        comparison=comparison,
        config=public_config(run.config, public_names(run)),
        provenance=run.provenance,
        history=_read_history(run),
        audit=run.read_as(Audit, run.audit_file),
        predictions=predictions,
        row_scores={model: _row_scores(run, model, len(predictions[model])) for model in models},
        human=run.read_as(HumanRatings, human_file) if human_file.is_file() else None,
        merge=tuple(merge_lines(run)),
        rows=run.read_data_report(),
    )


def _read_history(run: RunDir) -> tuple[Step, ...]:
    try:
        return tuple(check_type(list[Step], run.read_history()))
    except DamagedError as error:
        raise run.damaged_file(run.history_file, str(error)) from None


def _row_scores(run: RunDir, model: ModelName, n: int) -> dict[str, list[float]]:
    scores = {rows.name: rows.rows[:, 0].tolist() for rows in read_measured(run, model) if rows.name in ROW_METRICS}
    if any(len(values) != n for values in scores.values()):
        file = run.row_statistics_file(model)
        raise RunDirError(file, "does not fit the predictions beside it", "evaluate that model again")
    return scores
