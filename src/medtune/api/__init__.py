"""The public interface: what the commands do, as functions. `import medtune` gives all of it by name.

Functions raise MedtuneError for what the caller can mend. Those that work in a run take `progress`, a function that
receives `Progress` events in place of the bars.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from medtune.api.runs import Run
from medtune.api.shown import Findings, Plan, ShownComparison
from medtune.api.spelling import as_call, spelled_as_calls
from medtune.api.working import RunInterrupted, working
from medtune.config import recipes
from medtune.config.recipes import Overrides, override, recipe_name
from medtune.config.schema import Config
from medtune.errors import ConfigError, MedtuneError
from medtune.records import Comparison, ModelName, Prediction, Score, SystemName
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import Listener, Progress

if TYPE_CHECKING:
    import pandas

StrPath = str | os.PathLike[str]
# A file that `medtune score` reads, or rows of that form: id, reference, prediction and what else there is.
Predictions: TypeAlias = "StrPath | Sequence[Prediction] | Sequence[Mapping[str, Any]] | pandas.DataFrame"

__all__ = [
    "Comparison", "Config", "MedtuneError", "Prediction", "Progress", "Run", "RunInterrupted", "Score", "compare",
    "doctor", "evaluate", "load_recipe", "load_run", "plan", "prepare", "run", "score", "train",
]  # fmt: skip

load_recipe = spelled_as_calls()(recipes.load_recipe)


def run(
    recipe: StrPath | Config,
    run_dir: StrPath | None = None,
    *,
    overrides: Overrides = (),
    resume: bool = False,
    progress: Listener | None = None,
) -> Run:
    """The whole job: data, baseline, controls, training, tuned, comparison. Complete stages are skipped.

    `recipe` is a shipped recipe's name, a YAML file or a `Config`; the run goes to `run_dir`, or to `runs/NAME`. With
    `resume` a run that is there goes on. Raises MedtuneError before any long work, and RunInterrupted where it was
    stopped.

    >>> run = medtune.run("demo", overrides={"training.max_steps": 3})
    >>> print(run.comparison.reading[0])
    On ... questions in ... groups the tuned model, against the baseline, ...
    >>> events = []
    >>> medtune.run("demo", overrides={"training.max_steps": 3}, resume=True, progress=events.append) == run
    True
    >>> events[0].stage, events[0].done, events[0].total
    ('data', 1, 1)
    """
    config, path = _resolve(recipe, overrides, run_dir)
    with working(progress):
        from medtune.pipeline.run import run as run_all

        run_all(config, path, resume=resume)
    return Run(path)


def prepare(
    recipe: StrPath | Config,
    run_dir: StrPath | None = None,
    *,
    overrides: Overrides = (),
    resume: bool = False,
    progress: Listener | None = None,
) -> Run:
    """The first stage alone: a run whose rows are cleaned, split and audited. Arguments are those of `run`.

    >>> medtune.prepare("demo", "runs/by-hand", overrides={"training.max_steps": 3}).stages
    ('data',)
    """
    config, path = _resolve(recipe, overrides, run_dir)
    with working(progress):
        from medtune.pipeline.run import perform, start_run

        perform("data", start_run(config, path, resume=resume))
    return Run(path)


def train(run: Run | StrPath, *, resume: bool = False, progress: Listener | None = None) -> Run:
    """The adapter of a run whose data is prepared. Raises MedtuneError, and RunInterrupted where it was stopped.

    >>> medtune.train("runs/by-hand").stages
    ('data', 'train')
    """
    opened = _reopen(run)
    with working(progress):
        from medtune.pipeline.run import perform

        perform("train", RunDir(opened.path), resume=resume)
    return opened


@overload
def evaluate(run: Run | StrPath, model: ModelName, *, progress: Listener | None = None) -> dict[str, Score]: ...


@overload
def evaluate(
    run: Run | StrPath, model: Literal["controls"], *, progress: Listener | None = None
) -> dict[SystemName, dict[str, Score]]: ...


def evaluate(
    run: Run | StrPath, model: ModelName | Literal["controls"], *, progress: Listener | None = None
) -> dict[str, Score] | dict[SystemName, dict[str, Score]]:
    """Answer and score the test rows with the base model, or the tuned one: metric → score.

    With "controls", those of every answer that took no tuning: control → metric → score. What is complete is read, and
    what was interrupted goes on. Raises MedtuneError.

    >>> medtune.evaluate("runs/by-hand", "baseline")["bleu"].n
    8
    >>> sorted(medtune.evaluate("runs/by-hand", "controls"))
    ['cut_reference', 'few_shot', 'nearest_question', 'random_answer']
    >>> medtune.evaluate("runs/by-hand", "tuned")["bleu"].ci95
    (..., ...)
    """
    if model not in ("baseline", "controls", "tuned"):
        raise ConfigError("evaluate", f"{model!r} must be baseline, controls or tuned")
    opened = _reopen(run)
    directory = RunDir(opened.path)
    with working(progress):
        from medtune.pipeline.run import perform

        perform(model, directory)
        if model != "controls":
            return directory.read_scores(model)
        names: tuple[SystemName, ...] = directory.config.evaluation.controls
        return {name: directory.read_scores(name) for name in names}


@overload
def compare(target: Run | StrPath, *, progress: Listener | None = None) -> ShownComparison: ...


@overload
def compare(
    target: Predictions,
    other: Predictions,
    *,
    metrics: Sequence[str] | None = None,
    bertscore_model: str | None = None,
    resamples: int | None = None,
    names: tuple[str, str] | None = None,
    progress: Listener | None = None,
) -> ShownComparison: ...


def compare(
    target: Run | Predictions,
    other: Predictions | None = None,
    *,
    metrics: Sequence[str] | None = None,
    bertscore_model: str | None = None,
    resamples: int | None = None,
    names: tuple[str, str] | None = None,
    progress: Listener | None = None,
) -> ShownComparison:
    """Baseline and tuned of a run side by side; or two sets of predictions of any tools, the second against the first.

    Predictions are files, as for `medtune score`, or rows: `Prediction`s, mappings or a DataFrame. `resamples` are 1000
    unless given, 500 to 100,000. Raises MedtuneError.

    >>> comparison = medtune.compare("runs/by-hand")
    >>> [row.metric for row in comparison.rows if row.verdict == "better"]
    [...]
    >>> print(comparison.reading[-1])
    These scores measure similarity to the reference answers...
    >>> run = medtune.load_run("runs/demo")
    >>> medtune.compare(run.predictions("baseline"), run.predictions("tuned"), metrics=["bleu"]).rows[0].n
    8
    """
    if other is not None and not isinstance(target, Run):
        from medtune.api.tables import compare_rows

        with working(progress):
            return ShownComparison.of(
                compare_rows(target, other, metrics=metrics, encoder=bertscore_model, resamples=resamples, names=names)
            )
    if not isinstance(target, Run | str | os.PathLike) or (other is None and os.path.isfile(target)):
        raise ConfigError("compare", "one set of predictions has nothing to be compared with", "give a second")
    if other is not None or metrics or bertscore_model or names or resamples is not None:
        raise ConfigError(
            "compare", "metrics, bertscore_model, resamples and names go with two sets of predictions, and a run alone"
        )
    opened = _reopen(target)
    with working(progress):
        from medtune.pipeline.run import perform

        perform("compare", RunDir(opened.path))
    return opened.comparison


def score(
    predictions: Predictions,
    *,
    references: StrPath | None = None,
    metrics: Sequence[str] | None = None,
    bertscore_model: str | None = None,
    resamples: int = 1000,
    progress: Listener | None = None,
) -> dict[str, Score]:
    """Score any tool's predictions: metric → value, 95 % interval, n and signature. Raises MedtuneError.

    `predictions` are a file or rows, as for `compare`; `references` is a file with id and reference, where the
    predictions have none. Without `metrics`, all that can be had.

    >>> rows = [{"id": "1", "reference": "Gout hurts.", "prediction": "Gout hurts."}]
    >>> medtune.score(rows, metrics=["exact_match"])["exact_match"].value
    1.0
    """
    from medtune.api.tables import score_rows

    with working(progress):
        return score_rows(predictions, references, metrics, bertscore_model, resamples)


@spelled_as_calls()
def load_run(path: StrPath) -> Run:
    """A run that is there, complete or not. Raises RunDirError if `path` holds none.

    >>> "compare" in medtune.load_run("runs/demo").stages
    True
    """
    return Run(RunDir.open(Path(path)).path)


def doctor(
    recipe: StrPath | Config | None = None, *, overrides: Overrides = (), run_dir: StrPath | None = None
) -> Findings:
    """What would keep a run from working here, and what mends it; with a recipe, what the recipe needs too.

    Raises nothing for what it finds: `failures` has it, and no token is ever shown.

    >>> found = medtune.doctor()
    >>> {finding.state for finding in found} <= {"ok", "warning", "failure"}
    True
    """
    if recipe is None and (overrides or run_dir is not None):
        raise ConfigError("doctor", "overrides and run_dir belong to a recipe", "name one, such as doctor('demo')")
    from medtune.pipeline.doctor import examine
    from medtune.pipeline.doctor.findings import secrets, without_secrets

    looked_at = recipe if recipe is None or isinstance(recipe, Config) else os.fspath(recipe)
    folder = None if run_dir is None else Path(run_dir)
    with working():
        found = list(examine(looked_at, overrides, folder))
    hidden = secrets()
    return Findings(without_secrets(finding, hidden, as_call) for finding in found)


@spelled_as_calls()
def plan(recipe: StrPath | Config, gpu: str | None = None, *, overrides: Overrides = ()) -> Plan:
    """Memory, plan and time of a recipe on a GPU that need not be here; times are estimates, and no weights are read.

    `gpu` is a name such as "t4" or a number of GiB as text; without it the GPU that is here, or else several side by
    side. Raises MedtuneError.

    >>> plan = medtune.plan("demo", "t4")
    >>> plan.forecasts["t4"].step.plan.peak_bytes > 0
    True
    """
    config = override(recipe, overrides) if isinstance(recipe, Config) else load_recipe(recipe, overrides)
    with working():
        from medtune.pipeline import plan as planning
        from medtune.runtime.gpus import GPUS, described_gpu, this_gpu

        path, rows = planning.base_folder(config), planning.row_sizes(config)
        if chosen := described_gpu(gpu) if gpu is not None else this_gpu():
            return Plan({gpu or chosen.name: planning.forecast(config, path, chosen, rows)}, rows)
        return Plan({name: planning.forecast_or_reason(config, path, one, rows) for name, one in GPUS.items()}, rows)


@spelled_as_calls()
def _resolve(recipe: StrPath | Config, overrides: Overrides, run_dir: StrPath | None) -> tuple[Config, Path]:
    if not isinstance(recipe, Config):
        default = Path("runs") / recipe_name(os.fspath(recipe))
        return load_recipe(recipe, overrides), default if run_dir is None else Path(run_dir)
    if run_dir is None:
        raise ConfigError("a Config has no name to call its run by", fix="give run_dir, such as run_dir='runs/mine'")
    return override(recipe, overrides), Path(run_dir)


def _reopen(run: Run | StrPath) -> Run:
    """The run, without a model in memory that a stage may need the room of."""
    if isinstance(run, Run):
        run.close()
        return run
    return load_run(run)
