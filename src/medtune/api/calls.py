"""The whole job, its stages and what comes before them as functions; runs that are there."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

from medtune.api.launched import run_launched
from medtune.api.runs import Run
from medtune.api.shown import Findings, Plan, Scores
from medtune.api.working import as_call, spelled_as_calls, working
from medtune.config.recipes import Overrides, load_recipe, override, recipe_name
from medtune.config.schema import Config
from medtune.errors import ConfigError
from medtune.records import ModelName, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import controls_of
from medtune.runtime.launch import is_launched
from medtune.runtime.progress import Listener

StrPath = str | os.PathLike[str]


def run(
    recipe: StrPath | Config,
    run_dir: StrPath | None = None,
    *,
    overrides: Overrides = (),
    resume: bool = False,
    on_cpu: bool = False,
    gpus: int | Literal["all"] | None = None,
    progress: Listener | None = None,
) -> Run:
    """The whole job: data, baseline, controls, training, tuned, comparison. Complete stages are skipped.

    `recipe` is a shipped recipe's name, a YAML file or a `Config`; the run goes to `run_dir`, or to `runs/NAME`. With
    `resume` a run that is there continues. A model of over a billion parameters is refused without a GPU, unless
    `on_cpu` insists. With `gpus` the work is shared over so many GPUs, in a process for each: this one holds none.
    Raises MedtuneError before any long work, and RunInterrupted where it was stopped.

    >>> run = medtune.run("demo", overrides={"training.max_steps": 3})
    >>> print(run.comparison.reading[1])
    On ... questions in ... groups the tuned model, against the baseline, ...
    >>> events = []
    >>> medtune.run("demo", overrides={"training.max_steps": 3}, resume=True, progress=events.append) == run
    True
    >>> events[0].stage, events[0].done, events[0].total
    ('data', 1, 1)
    """
    config, path = _resolve(recipe, overrides, run_dir)
    if gpus is not None and not is_launched():
        options = [option for option, given in (("--resume", resume), ("--on-cpu", on_cpu)) if given]
        with spelled_as_calls():
            run_launched(config, path, gpus, options=options, listener=progress)
        return Run(path)
    with working(progress, processes="all"):
        from medtune.pipeline.run import run as run_all

        run_all(config, path, resume=resume, on_cpu=on_cpu)
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


def train(run: Run | StrPath, *, resume: bool = False, on_cpu: bool = False, progress: Listener | None = None) -> Run:
    """The adapter of a run whose data is prepared. Raises MedtuneError, and RunInterrupted where it was stopped.

    A model of over a billion parameters is refused without a GPU, unless `on_cpu` insists.

    >>> medtune.train("runs/by-hand").stages
    ('data', 'train')
    """
    opened = reopen(run)
    with working(progress, processes="all"):
        from medtune.pipeline.checks import require_gpu
        from medtune.pipeline.run import perform

        if not on_cpu:
            require_gpu(RunDir(opened.path).config, RunDir(opened.path))
        perform("train", RunDir(opened.path), resume=resume)
    return opened


@overload
def evaluate(run: Run | StrPath, model: ModelName, *, progress: Listener | None = None) -> Scores: ...


@overload
def evaluate(
    run: Run | StrPath, model: Literal["controls"], *, progress: Listener | None = None
) -> dict[SystemName, Scores]: ...


def evaluate(
    run: Run | StrPath, model: ModelName | Literal["controls"], *, progress: Listener | None = None
) -> Scores | dict[SystemName, Scores]:
    """Answer and score the test rows with the base model, or the tuned one: metric → score.

    With "controls", those of every answer without tuning: control → metric → score. With "tuned", the model answers
    with the nearest training answers in its prompt too, and `Run.scores("tuned_retrieval")` has the scores. What is
    complete is read, and what was interrupted is resumed. Raises MedtuneError.

    >>> medtune.evaluate("runs/by-hand", "baseline")["bleu"].n
    8
    >>> sorted(medtune.evaluate("runs/by-hand", "controls"))
    ['cut_reference', 'few_shot', 'nearest_question', 'random_answer', 'retrieval']
    >>> medtune.evaluate("runs/by-hand", "tuned")["bleu"].ci95
    (..., ...)
    """
    if model not in ("baseline", "controls", "tuned"):
        raise ConfigError("evaluate", f"{model!r} must be baseline, controls or tuned")
    opened = reopen(run)
    directory = RunDir(opened.path)
    with working(progress, processes="all"):
        from medtune.pipeline.run import perform

        perform(model, directory)
        if model != "controls":
            return Scores(directory.read_scores(model))
        names: Sequence[SystemName] = controls_of("controls", directory.config.evaluation.controls)
        return {name: Scores(directory.read_scores(name)) for name in names}


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
    """What would keep a run from working here, and how to fix it; with a recipe, what the recipe needs too.

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
def plan(
    recipe: StrPath | Config,
    gpu: str | None = None,
    *,
    gpus: int = 1,
    overrides: Overrides = (),
    run_dir: StrPath | None = None,
) -> Plan:
    """Memory, plan and time of a recipe on a GPU that need not be here; times are estimates, and no weights are read.

    `gpu` is a name such as "t4" or a number of GiB as text; without it the GPU that is here, or else several side by
    side. With several `gpus` of that kind, a process each, it is for one of them. The baseline of a run at `run_dir`
    tells what the test set can show. Raises MedtuneError.

    >>> plan = medtune.plan("demo", "t4")
    >>> plan.forecasts["t4"].step.plan.peak_bytes > 0
    True
    """
    config = override(recipe, overrides) if isinstance(recipe, Config) else load_recipe(recipe, overrides)
    with working():
        from medtune.pipeline.plan import forecasts
        from medtune.pipeline.plan_power import expected_power

        found, rows = forecasts(config, gpu, gpus)
        return Plan(found, rows, expected_power(config, rows, None if run_dir is None else Path(run_dir)))


@spelled_as_calls()
def _resolve(recipe: StrPath | Config, overrides: Overrides, run_dir: StrPath | None) -> tuple[Config, Path]:
    if not isinstance(recipe, Config):
        default = Path("runs") / recipe_name(os.fspath(recipe))
        return load_recipe(recipe, overrides), default if run_dir is None else Path(run_dir)
    if run_dir is None:
        raise ConfigError("a Config has no name to call its run by", fix="give run_dir, such as run_dir='runs/mine'")
    return override(recipe, overrides), Path(run_dir)


def reopen(run: Run | StrPath) -> Run:
    """The run at `run`, without a model in memory that a stage may need the room of."""
    if isinstance(run, Run):
        run.close()
        return run
    return load_run(run)
